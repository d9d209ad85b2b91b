"""The replica: equal to the database, atomic, quick to go on, and honest about its age."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import asynccontextmanager
from dataclasses import fields

import psycopg
import pytest
from integration.nodes import eventually, run
from integration.replicas import replica_of
from integration.test_search_oracle import populate
from psycopg.rows import dict_row

from engine_pg.api.replicated import TABLES
from engine_pg.inventory.rows import Event, Vm
from engine_pg.replica.table import Table
from engine_pg.supervisor import Background


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


ATTACHED = r"""
select split_part(encode(tgargs, 'escape'), '\000', 1) as topic
  from pg_trigger where tgname = '0_feed_change'
"""


def test_every_table_of_a_replica_is_attached_to_the_feed(database_url):
    with psycopg.connect(database_url) as connection:
        attached = {topic for (topic,) in connection.execute(ATTACHED)}
    assert attached >= {table.topic for table in TABLES}


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
    "insert into setting (name, value) values ('monitor_period_s', '5'), ('nonsense', '[1, null]')",
    "update setting set value = null where name = 'nonsense'",
    "insert into formation (name, monitor, synchronous, nodes)"
    " values ('default', 'up', true, '[{\"name\": \"node1\", \"lag_bytes\": null}]')",
    "update formation set monitor = 'away', monitor_seen_at = now(), wanted_standbys = 1",
    "truncate command cascade",
)


VMS = """
insert into vm (vm_id, cluster_id, template_id, name, memory_bytes, comment)
select gen_random_uuid(), c.cluster_id, gen_random_uuid(), 'many-' || n, 1 << 30, '0'
  from (select cluster_id from cluster limit 1) c, generate_series(1, %s) n
"""


@asynccontextmanager
async def filled(url, vms: int, **options):
    """Yield a connection to a database with so many VMs, and a replica of it."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("insert into data_center values (gen_random_uuid(), 'd')")
        await connection.execute(
            "insert into cluster (cluster_id, data_center_id, name)"
            " select gen_random_uuid(), data_center_id, 'c' from data_center"
        )
        await connection.execute(VMS, [vms])
        async with replica_of(url, **options) as node:
            await node.replica.passed()
            yield connection, node


@pytest.mark.parametrize("limit", [40, 2000])
def test_no_reader_sees_half_of_a_transaction(fresh_database_url, limit):
    async def scenario():
        async with filled(fresh_database_url, 300, limit=limit) as (connection, node):
            seen: list[str] = []

            async def reading() -> None:
                while True:
                    told = {vm.comment for vm in node.replica.view.of(Vm)}
                    assert len(told) == 1
                    if seen[-1:] != [*told]:
                        seen.extend(told)
                    await asyncio.sleep(0)

            async with Background() as background:
                background.start(reading(), name="reader")
                for number in range(1, 15):
                    await connection.execute("update vm set comment = %s", [str(number)])
                    view = await node.replica.passed()
                    assert {vm.comment for vm in view.of(Vm)} == {str(number)}
            assert seen[-1] == "14"

    run(scenario())


def test_who_took_a_view_goes_on_reading_it(fresh_database_url):
    async def scenario():
        async with filled(fresh_database_url, 50) as (connection, node):
            view = await node.replica.passed()
            before = list(view.of(Vm))
            await connection.execute("update vm set name = 'z' || name, comment = 'new'")
            await connection.execute("delete from vm where name like '%%9'")
            assert len((await node.replica.passed()).of(Vm)) < 50
            assert list(view.of(Vm)) == before
            assert len(view.of(Vm).by("cluster_id", before[0].cluster_id)) == 50

    run(scenario())


@pytest.mark.quiet
def test_ten_thousand_changes_hold_the_loop_for_moments_only(fresh_database_url):
    longest = 0.0

    async def ticking() -> None:
        nonlocal longest
        while True:
            before = time.thread_time()  # what others do on this machine does not count
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - before)

    async def scenario():
        async with filled(fresh_database_url, 5, poll_s=60) as (connection, node):
            async with Background() as background:
                background.start(ticking(), name="ticking")
                for statement in (VMS.replace("many-", "more-"), "update vm set comment = %s"):
                    await connection.execute(statement, [10_000])
                    view = await node.replica.passed()
            assert len(view.of(Vm)) == 10_005
            assert node.replica.figures.changes >= 20_000

    run(scenario())
    assert longest < 0.02


def test_a_read_sees_what_was_committed_before_it_though_no_bell_rings(fresh_database_url):
    async def scenario():
        async with filled(fresh_database_url, 3, poll_s=60) as (connection, node):
            for number in range(50):
                await connection.execute("update vm set comment = %s", [str(number)])
                view = await node.replica.passed()
                assert {vm.comment for vm in view.of(Vm)} == {str(number)}

    run(scenario())


def test_the_bell_brings_changes_to_who_does_not_ask(fresh_database_url):
    async def scenario():
        async with filled(fresh_database_url, 3, poll_s=60, ringing=True) as (connection, node):

            async def is_there() -> bool:
                return all(vm.comment == "x" for vm in node.replica.view.of(Vm))

            await asyncio.sleep(0)
            await connection.execute("update vm set comment = 'x'")
            await eventually(is_there, 5)

    run(scenario())


def test_reads_at_once_share_their_barriers(fresh_database_url):
    async def scenario():
        async with filled(fresh_database_url, 3, poll_s=60) as (_, node):
            before = node.replica.figures.barriers
            async with asyncio.TaskGroup() as group:
                for _ in range(200):
                    group.create_task(node.reads.take())
            assert 1 <= node.replica.figures.barriers - before <= 2
            assert node.replica.figures.reads["fresh"] >= 200

    run(scenario())


def test_a_read_never_joins_a_barrier_that_is_under_way(fresh_database_url):
    async def scenario():
        async with filled(fresh_database_url, 3, poll_s=60) as (connection, node):
            sent, go_on = asyncio.Event(), asyncio.Event()
            read = node.replica._feed.read

            async def slow(cursor, **options):
                found = await read(cursor, **options)
                if not go_on.is_set():
                    sent.set()
                    await go_on.wait()
                return found

            node.replica._feed.read = slow
            async with asyncio.TaskGroup() as group:
                early = group.create_task(node.replica.passed())
                await sent.wait()
                await connection.execute("update vm set comment = 'later'")
                late = group.create_task(node.replica.passed())
                await asyncio.sleep(0)
                go_on.set()
            assert {vm.comment for vm in early.result().of(Vm)} == {"0"}
            assert {vm.comment for vm in late.result().of(Vm)} == {"later"}

    run(scenario())


def test_only_the_last_events_are_kept(fresh_database_url):
    async def scenario():
        async with filled(fresh_database_url, 1, poll_s=60) as (connection, node):
            await connection.execute(
                "insert into event (code, description)"
                " select 1, n::text from generate_series(1, 12000) n"
            )
            events = list((await node.replica.passed()).of(Event))
            assert [events[0].description, events[-1].description] == ["12000", "2001"]

    run(scenario())


class Unreadable(Table):
    def row(self, record):
        raise KeyError(record["unheard_of"])


def test_a_row_that_cannot_be_read_leaves_the_replica_stale_and_the_node_alive(fresh_database_url):
    async def scenario():
        async with filled(fresh_database_url, 3) as (connection, node):
            table = node.replica._by_topic["vm"]
            values = {field.name: getattr(table, field.name) for field in fields(table)}
            node.replica._by_topic["vm"] = Unreadable(**values)
            await connection.execute("update vm set comment = 'x'")
            assert (await node.reads.take()).stale_s is not None
            node.replica._by_topic["vm"] = table

            async def is_fresh() -> bool:
                return (await node.reads.take()).stale_s is None

            await eventually(is_fresh)
            assert {vm.comment for vm in node.replica.view.of(Vm)} == {"x"}

    run(scenario())
