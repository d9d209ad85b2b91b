"""What each role of a database may do, and must not; an engine works as the least of them."""

from __future__ import annotations

import base64
from urllib.parse import urlsplit

import psycopg
import pytest
from integration.engines import engine, simulated
from integration.nodes import run
from integration.roled import roled

from engine_pg.cli import db as cli
from engine_pg.cluster.breaking import break_lock
from engine_pg.cluster.locks import LockKey, Mode, Wanted
from engine_pg.configuration.live import LiveSettings
from engine_pg.db import migrate, roles
from engine_pg.db.scram import verifier
from engine_pg.errors import Invalid
from engine_pg.singletons.retention import TRIM, Retention

NOT_ALLOWED = "42501"
READ_ONLY = "25006"
TABLES = (
    "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'"
)
LEAKED = """
select proname from pg_proc where pronamespace = 'public'::regnamespace
   and has_function_privilege('public', oid, 'execute')
"""


@pytest.fixture(scope="module")
def known(postgres):
    with roled(postgres) as made:
        migrate.upgrade(made.url("owner"))
        yield made


@pytest.mark.parametrize(
    ("kind", "query", "state"),
    [
        ("runtime", "create table anything (i integer)", NOT_ALLOWED),
        ("runtime", "create temporary table anything (i integer)", NOT_ALLOWED),
        ("runtime", "create schema anything", NOT_ALLOWED),
        ("runtime", "alter table vm add column anything integer", NOT_ALLOWED),
        ("runtime", "drop function cluster_batch", NOT_ALLOWED),
        ("runtime", "truncate vm", NOT_ALLOWED),
        ("runtime", "select feed_attach('setting_change')", NOT_ALLOWED),
        ("runtime", "select privileges_grant()", NOT_ALLOWED),
        ("runtime", "update alembic_version set version_num = '0001'", NOT_ALLOWED),
        ("runtime", "update schema_serves set oldest = '0001'", NOT_ALLOWED),
        ("runtime", "update event set description = ''", NOT_ALLOWED),
        ("runtime", "delete from setting_change", NOT_ALLOWED),
        ("runtime", "update cluster_epoch set epoch_id = 1", NOT_ALLOWED),
        ("runtime", "select * from pg_authid", NOT_ALLOWED),
        ("runtime", "create role anybody", NOT_ALLOWED),
        ("runtime", "alter system set fsync = off", NOT_ALLOWED),
        ("read", "delete from vm", READ_ONLY),
        ("read", "begin read write; delete from vm", NOT_ALLOWED),
        ("read", "select password_hash from app_user", NOT_ALLOWED),
        ("read", "select token_hash from api_token", NOT_ALLOWED),
        ("read", "select payload from change", NOT_ALLOWED),
        ("read", "begin read write; select cluster_restored(1, '', '', '[]')", NOT_ALLOWED),
        ("monitor", "select * from vm", NOT_ALLOWED),
        ("monitor", "select params from command", NOT_ALLOWED),
        ("monitor", "begin read write; delete from lock_grant", NOT_ALLOWED),
        ("owner", "create role anybody", NOT_ALLOWED),
        ("read", "select name, enabled from app_user", None),
        ("read", "select * from vm, host, command, event, setting_change", None),
        ("monitor", "select * from member, leader, lock_grant, procrastinate_jobs", None),
        ("monitor", "select state, name from command", None),
        ("monitor", "select query from pg_stat_activity", None),
        ("monitor", "select sync_state from pg_stat_replication", None),
    ],
)
def test_a_role_may_do_its_work_and_nothing_else(known, kind, query, state):
    assert known.refusal(kind, query) == state


def test_no_function_is_everybodys(known):
    with psycopg.connect(known.admin_url) as connection:
        assert connection.execute(LEAKED).fetchall() == []


def test_an_engine_works_as_the_runtime_role(known):
    async def story():
        with simulated("all") as hosts:
            async with engine(known.url("runtime"), "a") as a:
                cluster, _ = await a.furnish(hosts)
                vm = await a.vm(cluster)
                assert (await a.do("start_vm", vm)).state == "succeeded"
                assert (await a.do("stop_vm", vm)).state == "succeeded"
                assert (await a.do("remove_vm", vm)).state == "succeeded"
                await broken_by_an_operator(a)
                for what in TRIM:
                    await Retention(a.node.db, LiveSettings()).trim(what)
                await trimmed(a.node.db)

    run(story())


async def broken_by_an_operator(one):
    await one.node.locks.acquire(Wanted(LockKey("invoice", "42"), Mode.EXCLUSIVE), wait_s=1.0)
    broken = await break_lock(one.node.db, LockKey("invoice", "42"), by="dba", reason="a test")
    assert broken


async def trimmed(db):
    async with db.write() as tx:
        await tx.run("select feed_trim('0', '0', 1, '0', 100)")
        await tx.run("select events_number()")


def test_what_a_later_migration_makes_needs_no_second_step(known):
    with psycopg.connect(known.url("owner"), autocommit=True) as connection:
        connection.execute("create table later (i integer generated always as identity)")
        connection.execute(
            "create function later_of() returns integer language sql as 'select max(i) from later'"
        )
    try:
        assert known.refusal("runtime", "insert into later default values") is None
        assert known.refusal("runtime", "select later_of()") is None
        assert known.refusal("read", "select * from later") is None
        assert known.refusal("read", "select later_of()") == NOT_ALLOWED
        assert known.refusal("monitor", "select * from later") == NOT_ALLOWED
    finally:
        with psycopg.connect(known.url("owner"), autocommit=True) as connection:
            connection.execute("drop function later_of; drop table later")


def test_roles_of_a_database_that_others_migrated_own_all_of_it(known, postgres, template_database):
    with postgres.database(template_database) as url:
        path = urlsplit(url).path
        there = urlsplit(postgres.admin_url)._replace(path=path).geturl()
        roles.make(there, known.prefix)
        theirs = urlsplit(known.url("owner"))._replace(path=path).geturl()
        migrate.downgrade(theirs, "0015")
        migrate.upgrade(theirs)
        with psycopg.connect(there) as connection:
            owned = f"{TABLES} and relowner <> %s::regrole"
            assert connection.execute(owned, [f"{known.prefix}_owner"]).fetchall() == []


def test_the_printed_sql_makes_the_roles_and_holds_no_password(known, tmp_path, command_line):
    (tmp_path / "runtime").write_text(f"{known.passwords['runtime']}\n")
    printed = command_line(
        cli.app, "roles", "--sql", "--prefix", known.prefix, "--passwords", tmp_path
    )
    assert known.passwords["runtime"] not in printed
    with psycopg.connect(known.admin_url, autocommit=True) as connection:
        connection.execute(printed.encode())
    assert known.refusal("runtime", "select 1") is None


def test_a_role_that_may_too_much_is_refused(known, postgres):
    with psycopg.connect(postgres.admin_url, autocommit=True) as connection:
        connection.execute(f"create role {known.prefix}x_runtime superuser")
        try:
            with pytest.raises(Invalid, match="may do far too much"):
                roles.make(known.admin_url, f"{known.prefix}x")
        finally:
            connection.execute(f"drop role {known.prefix}x_runtime")


def test_a_verifier_is_what_the_server_makes_of_the_password(known):
    name = f"{known.prefix}_read"
    with psycopg.connect(known.admin_url) as connection:
        made = connection.pgconn.encrypt_password(b"secret", name.encode(), b"scram-sha-256")
        salt = base64.b64decode(made.decode().split("$")[1].split(":")[1])
    assert verifier("secret", salt=salt) == made.decode()
