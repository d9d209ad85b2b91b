"""The cluster in somebody else's service: a database URL, a schema of its own, one object."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import psycopg
import pytest
from integration.nodes import eventually, run

from engine_pg.cluster import (
    Cluster,
    Lease,
    LockBusy,
    LockKey,
    MemberEnded,
    Mode,
    Reason,
    StaleToken,
    Wanted,
    schema,
)
from engine_pg.db.database import Database
from engine_pg.db.listener import RING, Doorbells
from engine_pg.db.urls import schema_url
from engine_pg.errors import Conflict, Invalid
from engine_pg.ids import new_id

LEASE = Lease(ttl_s=1.0, margin_s=0.1, heartbeat_s=0.1)
KEY = LockKey("invoice", "42")
FOREIGN = """
create table member (nick text);
create table leader (nick text);
create table alembic_version (version_num text);
insert into alembic_version values ('theirs');
create table invoice (invoice_id integer primary key, paid_by text);
insert into invoice values (42, null);
insert into member values ('one of theirs');
"""


ENGINES_CHANNEL = "engine_pg"  # named in the function that tells of each schema's own
SHAPE = """
select 'function', pg_get_functiondef(oid) from pg_proc
 where pronamespace = to_regnamespace(%(schema)s)
union all
select 'relation', format('%%s %%s', relname, relkind) from pg_class
 where relnamespace = to_regnamespace(%(schema)s)
order by 1, 2
"""


def execute(url, query):
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(query)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def service_url(empty_database_url):
    """Yield a database with tables of the service's own, two of them named as ours are."""
    execute(empty_database_url, FOREIGN)
    schema.install(empty_database_url)
    return empty_database_url


def cluster(url, node, **options):
    return Cluster(url, node=node, lease=LEASE, **options)


async def pay(one, hold, by):
    async with one.fenced(hold) as tx:
        await tx.run("update invoice set paid_by = %(by)s where invoice_id = 42", {"by": by})


def paid_by(url):
    return execute(url, "select paid_by from invoice where invoice_id = 42")[0][0]


def test_installing_twice_changes_nothing_and_touches_no_foreign_table(service_url):
    tables = "select table_schema, table_name from information_schema.tables order by 1, 2"
    before = execute(service_url, tables)
    schema.install(service_url)
    assert execute(service_url, tables) == before
    assert ("engine_pg", "member") in before
    assert execute(service_url, "select * from public.member") == [("one of theirs",)]
    assert execute(service_url, "select * from public.alembic_version") == [("theirs",)]
    assert not [name for place, name in before if place == "engine_pg" and name == "command"]


def test_two_that_install_at_once_install_once(empty_database_url):
    words = [sys.executable, "-m", "engine_pg.cluster", "install", empty_database_url]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    both = [subprocess.Popen(words, text=True, **streams) for _ in range(2)]
    assert [each.communicate(timeout=60)[0] for each in both] == ["", ""]
    assert [each.returncode for each in both] == [0, 0]
    versions = execute(empty_database_url, "select version_num from engine_pg.alembic_version")
    assert versions == [(schema.REVISION,)]


def test_the_printed_sql_installs_the_same(service_url):
    words = [sys.executable, "-m", "engine_pg.cluster", "install", "--sql", "--schema", "printed"]
    printed = subprocess.run(words, check=True, capture_output=True, text=True, timeout=60).stdout
    execute(service_url, printed)
    schema.install(service_url, "printed")
    assert shape(service_url, "printed") == shape(service_url, schema.SCHEMA)


def shape(url, name):
    """Return what a schema consists of, as far as two of them can be compared."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(SHAPE, {"schema": name}).fetchall()
    return [(kind, text.replace(ENGINES_CHANNEL, "").replace(name, "")) for kind, text in rows]


def test_a_schema_of_a_newer_version_is_refused(service_url):
    execute(service_url, "update engine_pg.alembic_version set version_num = '9999'")

    async def story():
        with pytest.raises(Invalid, match="9999"):
            async with cluster(service_url, "a"):
                pass

    run(story())
    with pytest.raises(Invalid, match="9999"):
        schema.install(service_url)


def test_a_database_without_the_schema_says_how_to_install_it(empty_database_url):
    async def story():
        with pytest.raises(Invalid, match=r"engine_pg\.cluster install"):
            async with cluster(empty_database_url, "a"):
                pass

    run(story())


def test_a_lock_in_the_name_of_a_command_that_nobody_could_adopt_is_refused(service_url):
    async def story():
        async with cluster(service_url, "a") as a:
            with pytest.raises(Invalid, match="adopter"):
                async with a.lock(LockKey("job", "1"), reason=Reason(command_id=new_id())):
                    pass

    run(story())


@pytest.mark.parametrize("name", ["No", "a-b", "pg_toast", 'x"; drop schema y', ""])
def test_a_schema_that_would_need_quotes_is_refused(name):
    with pytest.raises(Invalid):
        schema.install("postgresql://127.0.0.1:1/nowhere", name)


def test_uninstalling_spares_a_schema_in_use_and_what_others_keep(service_url):
    async def story():
        async with cluster(service_url, "living"):
            with pytest.raises(Conflict, match="living"):
                await asyncio.to_thread(schema.uninstall, service_url)

    run(story())
    schema.uninstall(service_url)
    schema.uninstall(service_url)
    assert execute(service_url, "select to_regnamespace('engine_pg')") == [(None,)]
    assert execute(service_url, "select * from public.member") == [("one of theirs",)]


def test_a_fenced_write_reaches_the_services_own_tables_by_their_own_names(service_url):
    async def story():
        async with cluster(service_url, "a") as a:
            async with a.lock(KEY, reason="monthly run") as hold:
                async with a.fenced(hold) as tx:
                    assert await tx.all("select * from member") == [{"nick": "one of theirs"}]
                await pay(a, hold, "a")
            with pytest.raises(StaleToken):
                await pay(a, hold, "somebody late")

    run(story())
    assert paid_by(service_url) == "a"


def test_a_lock_excludes_between_nodes_and_names_its_holder(service_url):
    async def story():
        async with cluster(service_url, "a") as a, cluster(service_url, "b") as b:
            async with a.lock(KEY, reason="monthly run"):
                with pytest.raises(LockBusy, match="a: monthly run"):
                    async with b.lock(KEY):
                        pass
            async with b.lock(Wanted(KEY, Mode.SHARED), wait_s=5) as hold:
                assert hold.grants[0].token
            nodes = [each["node"] for each in await a.members()]
            assert nodes == ["a", "b"]

    run(story())


def test_two_clusters_in_one_database_do_not_see_each_other(service_url):
    schema.install(service_url, "other")

    async def story():
        async with (
            cluster(service_url, "a") as a,
            cluster(service_url, "b", schema="other") as b,
            a.lock(KEY),
            b.lock(KEY) as hold,
        ):
            assert [each["node"] for each in await a.members()] == ["a"]
            assert [each["node"] for each in await b.members()] == ["b"]
            await pay(b, hold, "b")

    run(story())
    assert paid_by(service_url) == "b"


def test_the_rings_of_one_cluster_do_not_wake_another_in_the_same_database(service_url):
    schema.install(service_url, "other")

    async def story():
        url, other_url = (schema_url(service_url, name) for name in (schema.SCHEMA, "other"))
        ours, theirs = Doorbells(url), Doorbells(other_url)
        own, foreign, mark = ours.bell("members"), theirs.bell("members"), theirs.bell("mark")
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(each.run()) for each in (ours, theirs)]
            for bell in (own, foreign, mark):
                assert await bell.wait(10)  # all ring once when they begin to listen
            for place, topic in [(url, "members"), (other_url, "mark")]:
                await ring_from_outside(place, topic)
            assert await own.wait(10)
            assert await mark.wait(10)
            assert not await foreign.wait(0)  # it would have been heard before the mark
            for each in running:
                each.cancel()

    run(story())


async def ring_from_outside(url, topic):
    async with Database(url) as db:
        await db.statement(RING, {"topics": [topic]})


@pytest.mark.usefixtures("no_poll")
def test_a_release_rings_who_waits_for_it_in_a_schema_of_its_own(service_url):
    async def story():
        async with cluster(service_url, "a") as a, cluster(service_url, "b") as b:

            async def wait():
                async with b.lock(KEY, wait_s=20):
                    return True

            async def waits():
                return execute(service_url, "select 1 from engine_pg.lock_ticket")

            async with a.lock(KEY):
                waiting = asyncio.ensure_future(wait())
                await eventually(waits)
            async with asyncio.timeout(5):
                assert await waiting

    run(story())


def test_a_member_that_was_ended_joins_again_and_its_old_locks_are_lost(service_url):
    async def story():
        async with cluster(service_url, "a") as a:
            before = [each["member_id"] for each in await a.members()]
            entered = asyncio.Event()

            async def work():
                async with a.lock(KEY):
                    entered.set()
                    await asyncio.sleep(30)

            async def end():
                await entered.wait()
                execute(service_url, "update engine_pg.member set state = 'ended'")

            async with asyncio.TaskGroup() as group:
                working = group.create_task(ends_with(MemberEnded, work()))
                group.create_task(end())
            assert working.result()

            async def again():
                return [m for m in await a.members() if m["member_id"] not in before]

            await eventually(again)
            execute(service_url, "delete from engine_pg.lock_grant")
            async with a.lock(KEY, wait_s=5) as hold:
                await pay(a, hold, "the new life")

    run(story())
    assert paid_by(service_url) == "the new life"


async def ends_with(kind, work):
    with pytest.raises(kind):
        await work
    return True


def test_a_lock_that_is_asked_for_between_two_lives_is_had_in_the_next(service_url):
    async def story():
        async with cluster(service_url, "a") as a:
            execute(service_url, "update engine_pg.member set state = 'ended'")
            async with a.lock(KEY, wait_s=5) as hold:
                await pay(a, hold, "a")

    run(story())


def test_a_singleton_runs_on_one_node_and_moves_when_that_leaves(service_url):
    async def story():
        ran = []

        def offer(one):
            @one.singleton("nightly")
            async def nightly(leadership):
                async with one.fenced(leadership) as tx:
                    await tx.run("select 1")
                ran.append((one.node, leadership.term))
                await asyncio.sleep(30)

        async def has_run(count):
            async def enough():
                return len(ran) >= count

            await eventually(enough)

        async with cluster(service_url, "b") as b:
            async with cluster(service_url, "a") as a:
                offer(a)
                await has_run(1)
                offer(b)
                rows = await b.leaders()
                assert [(row["name"], row["node"]) for row in rows] == [("nightly", "a")]
            await eventually(lambda: led_by(b, "b"))
            await has_run(2)
        nodes, terms = zip(*ran, strict=True)
        assert nodes[0] == "a"
        assert nodes[-1] == "b"
        assert list(terms) == sorted(set(terms))

    run(story())


async def led_by(one, node):
    return [row for row in await one.leaders() if row["node"] == node]


def test_a_transaction_of_ones_own_is_fenced_by_its_first_statement(service_url):
    async def story():
        async with (
            cluster(service_url, "a") as a,
            await psycopg.AsyncConnection.connect(service_url) as own,
        ):
            async with a.lock(KEY) as hold, own.transaction():
                await a.fence_in(own, hold)
                await own.execute("update invoice set paid_by = 'own' where invoice_id = 42")
            with pytest.raises(StaleToken, match="given back"):
                await a.fence_in(own, hold)

    run(story())
    assert paid_by(service_url) == "own"


def test_a_fence_is_refused_where_it_would_not_hold(service_url):
    async def story():
        async with cluster(service_url, "a") as a, a.lock(KEY) as hold:
            own = await psycopg.AsyncConnection.connect(service_url)
            async with own:
                await own.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
                with pytest.raises(Exception, match="READ COMMITTED"):
                    await a.fence_in(own, hold)
                await own.rollback()
                await own.set_isolation_level(psycopg.IsolationLevel.READ_COMMITTED)
                await own.execute("update invoice set paid_by = 'early' where invoice_id = 42")
                with pytest.raises(Exception, match="first statement"):
                    await a.fence_in(own, hold)
                await own.rollback()
                await own.set_autocommit(True)
                with pytest.raises(Invalid, match="begin one"):
                    await a.fence_in(own, hold)
            with pytest.raises(ValueError, match="rests on"):
                async with a.fenced():
                    pass

    run(story())
    assert paid_by(service_url) is None


def test_it_leaves_at_once_and_what_others_run_under_its_locks_is_cancelled(service_url):
    async def story():
        entered = asyncio.Event()

        async def work(one):
            async with one.lock(KEY):
                entered.set()
                await asyncio.sleep(30)

        async with cluster(service_url, "b") as b:
            async with asyncio.TaskGroup() as group:
                async with cluster(service_url, "a") as a:
                    working = group.create_task(ends_with(MemberEnded, work(a)))
                    await entered.wait()
                async with asyncio.timeout(LEASE.ttl_s / 2), b.lock(KEY, wait_s=5):
                    pass
            assert working.result()
            with pytest.raises(MemberEnded):
                async with a.lock(KEY):
                    pass

    run(story())


def test_a_database_that_does_not_answer_is_said_to_be_away():
    async def story():
        with pytest.raises(Exception, match="no writable PostgreSQL"):
            async with cluster("postgresql://127.0.0.1:1/nowhere?connect_timeout=1", "a"):
                pass

    run(story())
