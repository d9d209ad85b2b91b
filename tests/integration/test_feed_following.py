"""Following the feed: bells, lost listeners, other epochs, standbys, barriers."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import psycopg
import pytest
from integration.feeding import TABLES, Reader, connect, feed_of
from integration.nodes import eventually, run
from psycopg.rows import dict_row

from engine_pg.clock import boottime
from engine_pg.cluster.feed import Feed, Resync
from engine_pg.cluster.feed.reading import READ, place_of
from engine_pg.cluster.topics import CHANGES
from engine_pg.db import listener
from engine_pg.db.database import Database
from engine_pg.db.listener import Doorbells
from engine_pg.errors import DatabaseAway

LISTENERS = """
select pg_terminate_backend(pid) from pg_stat_activity
 where application_name = 'engine_pg doorbell' and (query like 'do %listen%' or query = 'select 1')
"""
CRASHED = "update cluster_epoch_marker set marker = gen_random_uuid()"
IN_DOUBT = """
select pid from pg_stat_activity
 where wait_event = 'SyncRep' and datname = %s and query like '%%with stand as%%'
"""
NEVER_S = 1000.0
BOUND_S = 15.0


@pytest.fixture
def url(fresh_database_url):
    with psycopg.connect(fresh_database_url) as connection:
        connection.execute(TABLES)
    return fresh_database_url


async def until(following, reader, name) -> None:
    async with asyncio.timeout(BOUND_S):
        while name not in reader.rows:
            reader.take(await anext(following))


def test_what_commits_between_the_first_read_and_the_first_wait_is_heard_of(url, monkeypatch):
    async def story():
        async with feed_of(url, poll_s=NEVER_S) as feed, await connect(url) as psql:
            reader = Reader(feed)
            await reader.copy()
            once = feed._db.once

            async def then_somebody_writes(query, params=None, **how):
                rows = await once(query, params, **how)
                if query == READ and not rows[0]["change_id"]:
                    await psql.execute("insert into account values ('between')")
                    feed._bells.ring(CHANGES)  # as the listener does when it hears of it
                return rows

            monkeypatch.setattr(feed._db, "once", then_somebody_writes)
            async with aclosing(feed.follow(reader.cursor)) as following:
                await until(following, reader, "between")

    run(story())


def test_a_killed_listener_misses_nothing(url):
    async def story():
        async with (
            feed_of(url, ringing=True, poll_s=NEVER_S) as feed,
            await connect(url) as psql,
        ):
            reader = Reader(feed)
            await reader.copy()
            async with aclosing(feed.follow(reader.cursor)) as following:
                await psql.execute("insert into account values ('a')")
                await until(following, reader, "a")
                for name in ("b", "c", "d"):
                    await eventually(lambda: killed_by(psql))
                    await psql.execute("insert into account values (%s)", [name])
                    await until(following, reader, name)

    run(story())


def test_who_does_not_know_the_engine_rings_in_the_trigger_and_a_node_after_its_commit(url):
    async def story():
        commits = []
        quiet = Database(url, on_commit=lambda: commits.append(1))
        loud = Database(url)
        async with quiet, loud, await connect(url) as ear:
            await ear.execute(listener.LISTEN)

            async def heard():
                await ear.execute("select 1")
                return [each.payload async for each in ear.notifies(timeout=0)]

            await quiet.statement("insert into account values ('a')")
            assert commits == [1]
            assert await heard() == []
            await loud.statement("insert into account values ('b')")
            assert await heard() == [CHANGES]

    run(story())


def test_many_commits_in_a_moment_are_told_by_few_rings(url):
    async def story():
        bells = Doorbells(url)
        async with (
            await connect(url) as ear,
            Database(url, pool_max=8, on_commit=lambda: bells.ring_soon(CHANGES)) as db,
            asyncio.TaskGroup() as group,
        ):
            await ear.execute(listener.LISTEN)
            running = group.create_task(bells.run())
            own = bells.bell(CHANGES)
            began_at = boottime()
            async with asyncio.TaskGroup() as writers:
                for n in range(100):
                    query = "insert into account values (%(n)s)"
                    writers.create_task(db.statement(query, {"n": n}))
            most = (boottime() - began_at) / listener._PACE_S + 2
            assert await own.wait(0)
            await asyncio.sleep(0.1)  # so many rings as there would be
            await ear.execute("select 1")
            heard = [each.payload async for each in ear.notifies(timeout=0)]
            assert 1 <= heard.count(CHANGES) <= most
            assert heard.count(CHANGES) < 100
            running.cancel()

    run(story())


def test_a_listener_that_hears_nothing_says_so_and_is_heard_of_when_it_hears_again(
    url, monkeypatch, caplog
):
    """As behind a transaction pooler, where LISTEN stays with no session."""

    async def story():
        deaf = []
        bells = Doorbells(url, probe_s=0.2, on_deaf=lambda: deaf.append(1))
        with monkeypatch.context() as swallowed:
            swallowed.setattr(listener, "LISTEN", "select 1")
            async with asyncio.TaskGroup() as group:
                running = group.create_task(bells.run())
                await eventually(lambda: truth(len(deaf) >= 2))
                assert bells.deaf
                assert caplog.text.count("transaction pooler") == 1
                swallowed.undo()
                await eventually(lambda: truth(not bells.deaf))
                count = len(deaf)
                bell = bells.bell("x")
                await bell.wait(1.0)
                assert len(deaf) == count
                running.cancel()

    run(story())


async def killed_by(psql):
    return (await psql.execute(LISTENERS)).rowcount


async def truth(value):
    return value


def test_a_socket_that_is_half_open_is_found_and_replaced(replicated):
    async def story():
        with replicated.private_link() as (link, url):
            bells = Doorbells(url, probe_s=0.2)
            bell = bells.bell("x")
            async with asyncio.TaskGroup() as group:
                running = group.create_task(bells.run())
                assert await bell.wait(BOUND_S)
                await asyncio.to_thread(link.swallow)
                assert await bell.wait(BOUND_S), "after a new LISTEN everybody looks"
                running.cancel()

    run(story())


def test_a_cursor_of_another_epoch_is_refused(url):
    async def story():
        async with feed_of(url) as feed, await connect(url) as psql:
            reader = Reader(feed)
            await reader.copy()
            await psql.execute(CRASHED)
            with pytest.raises(Resync, match="epoch"):
                await reader.read()
            await reader.copy()
            await psql.execute("insert into account values ('a')")
            assert len(await reader.read()) == 1

    run(story())


def test_a_cursor_from_the_future_is_refused(url):
    async def story():
        async with feed_of(url) as feed:
            reader = Reader(feed)
            await reader.copy()
            end = reader.cursor.end + 1000
            ahead = type(reader.cursor)(reader.cursor.epoch_id, f"{end}:{end}:")
            with pytest.raises(Resync, match="later"):
                await feed.read(ahead)

    run(story())


def test_a_follower_goes_on_through_a_failover_until_the_epoch_tells_it_to_copy(replicated):
    """The old primary goes on answering plain queries."""

    async def story():
        async with await connect(replicated.url) as psql:
            await psql.execute(TABLES)
        async with feed_of(replicated.url, poll_s=0.1, proof_s=0.2, bound_s=1.0) as feed:
            reader = Reader(feed)
            await reader.copy()
            async with aclosing(feed.follow(reader.cursor)) as following:
                reader.take(await anext(following))
                await asyncio.to_thread(replicated.pair.promote)
                with pytest.raises(Resync, match="epoch"):
                    await until(following, reader, "nobody")
            await reader.copy()

    run(story())


def test_a_standby_is_not_read_from(replicated):
    async def story():
        url = replicated.url_of(replicated.pair.standby.link, attrs="any")
        async with Database(url, away_s=0.3) as db:
            with pytest.raises(DatabaseAway):
                await db.once("select 1")
        params = {
            "sync": False,
            "snapshot": "1:1:",
            "until": None,
            "after": 0,
            "topics": None,
            "limit": 1,
        }
        async with await psycopg.AsyncConnection.connect(url, row_factory=dict_row) as standby:
            row = await (await standby.execute(READ, params)).fetchone()
        with pytest.raises(DatabaseAway, match="standby"):
            place_of(row)

    run(story())


@pytest.mark.parametrize("commits", ["on", "off"])
def test_a_barrier_proves_that_commits_are_replicated_and_a_plain_read_does_not(
    commits, replicated
):
    async def story():
        url = replicated.url
        async with await connect(url) as psql:
            await psql.execute(TABLES)
            name = replicated.database
            await psql.execute(f"alter database {name} set synchronous_commit = {commits}")
        async with Database(url, bound_s=1.0, away_s=0.5) as db:
            reader = Reader(Feed(db, Doorbells(url)))
            await reader.copy()
            await reader.read(sync=True)
            replicated.pair.primary.feed.cut()
            await reader.read()
            barrier = asyncio.ensure_future(reader.read(sync=True))
            asked = (replicated.pair.primary.ask, IN_DOUBT, name)
            await eventually(lambda: asyncio.to_thread(*asked))
            await reader.read()
            assert not barrier.done()
            replicated.pair.primary.feed.heal()
            await barrier

    run(story())
