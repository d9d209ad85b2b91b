"""The replica: equal to the database, atomic, quick to go on, and honest about its age."""

from __future__ import annotations

import re
from dataclasses import fields

import psycopg
from integration.nodes import run
from integration.replicas import replica_of
from integration.test_search_oracle import populate
from psycopg.rows import dict_row

from engine_pg.api.replicated import TABLES


def same(view, url) -> None:
    """Compare each table of a view with the table itself, row by row, values and their types."""
    with psycopg.connect(url, row_factory=dict_row) as connection:
        for table in TABLES:
            query = re.sub(r"to_jsonb\((\w)\).* as row", r"\1.*", table.copy)
            stored = connection.execute(query).fetchall()
            rows = view.of(table.kind)
            assert len(rows) == len(stored) == len(list(rows)), table.topic
            for record in stored:
                if "token_hash" in record:
                    record["token_hash"] = f"\\x{record['token_hash'].hex()}"
                row = rows.get(
                    table.key({k: v if k == "number" else str(v) for k, v in record.items()})
                )
                for field in fields(table.kind):
                    if field.name in record:
                        held, there = getattr(row, field.name), record[field.name]
                        assert (held, type(held)) == (there, type(there)), (table.topic, field.name)


def test_a_replica_equals_the_database(fresh_database_url):
    async def scenario():
        with psycopg.connect(fresh_database_url, autocommit=True) as connection:
            populate(connection)
            async with replica_of(fresh_database_url) as node:
                same(await node.replica.passed(), fresh_database_url)
                for statement in CHANGES:
                    connection.execute(statement)
                    same(await node.replica.passed(), fresh_database_url)
                assert node.replica.figures.resyncs == 1  # by the truncation alone

    run(scenario())


CHANGES = (
    'update vm set status = \'up\', attrs = \'{"a": [1.0, 2, null], "b": "é"}\'',
    "update vm set name = name || '-renamed' where memory_bytes > 2000000",
    "delete from vm where host_id is null",
    "delete from event where code = 32",
    "update event set description = 'other'",
    "insert into host_statistics (host_id, cpu_percent, seen_at)"
    " select host_id, 12, now() from host limit 3",
    "update host_statistics set cpu_percent = 1e-7, memory_free_bytes = 1::bigint << 50",
    "update host set hardware_id = gen_random_uuid() where name = 'h1'",
    "insert into app_user (user_id, name, password_hash) values (gen_random_uuid(), 'X@y', 'p')",
    "insert into api_token (token_hash, user_id, expires_at)"
    " select '\\xdeadbeef'::bytea, user_id, now() from app_user",
    "delete from app_user",
    "insert into command (command_id, name, description, subject_kind, subject_id, params)"
    " values (gen_random_uuid(), 'n', 'd', 'vm', gen_random_uuid(), '{\"x\": 1}')",
    "insert into command_step (command_id, number, name, title, kind, state, attempt)"
    " select command_id, n, 'n', 't', 'executing', 'started', 1"
    " from command, generate_series(1, 3) n",
    "update command_step set state = 'finished', outcome = '{}', ended_at = now() where number = 2",
    "truncate command cascade",
)
