"""The change feed: nothing lost, nothing twice, one key in order, whatever writers do."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import psycopg
import pytest
from integration.feeding import TABLES, Reader, connect, feed_of
from integration.nodes import eventually, node, run

from engine_pg.cluster.feed import Resync


@pytest.fixture
def url(fresh_database_url):
    with psycopg.connect(fresh_database_url) as connection:
        connection.execute(TABLES)
    return fresh_database_url


def test_a_row_travels_as_it_was_written_without_its_secret(url):
    async def story():
        async with feed_of(url) as feed, await connect(url) as psql:
            reader = Reader(feed)
            await reader.copy()
            await psql.execute("insert into account values ('a', 1, 'hush')")
            await psql.execute("update account set balance = 2, version = 2")
            await psql.execute("update account set secret = 'hush hush'")
            assert await reader.read() == [("insert", "a", 1), ("update", "a", 2)]
            assert reader.rows == {"a": {"name": "a", "balance": 2, "version": 2}}
            await psql.execute("update account set name = 'b'")
            await psql.execute("delete from account")
            assert await reader.read() == [
                ("delete", "a", 2),
                ("insert", "b", 2),
                ("delete", "b", 2),
            ]
            assert await reader.read() == []

    run(story())


def test_a_backlog_is_read_in_pages_that_meet(url):
    async def story():
        async with feed_of(url, limit=10) as feed, await connect(url) as psql:
            reader = Reader(feed)
            await reader.copy()
            await psql.execute("insert into account select n from generate_series(1, 25) n")
            first = reader.take(await feed.read(reader.cursor))
            assert first.more
            assert not reader.cursor.covers(first.seen)
            await psql.execute("update account set balance = 1, version = 2")
            await reader.read()
            assert len(reader.got) == 50
            assert reader.ids == sorted(set(reader.ids))
            assert reader.cursor.covers(first.seen)
            again = first.cursor_at(first.changes[4])
            found = await feed.read(again)
            assert [each.key for each in found.changes] == [str(n) for n in range(6, 16)]

    run(story())


def test_a_follower_hears_of_a_commit_by_its_bell(url):
    async def story():
        async with feed_of(url, ringing=True, poll_s=100.0) as feed, await connect(url) as psql:
            reader = Reader(feed)
            await reader.copy()
            await psql.execute("insert into account values ('a')")
            async with aclosing(feed.follow(reader.cursor)) as following:
                assert reader.take(await anext(following)).changes
                await psql.execute("insert into account values ('b')")
                while "b" not in reader.rows:
                    reader.take(await anext(following))

    run(story())


def keys(found):
    return [key for _, key, _ in found]


def test_a_writer_that_stays_open_delays_only_its_own_changes(url):
    """Its ids are lower than those of others that were read long ago."""

    async def story():
        async with feed_of(url) as feed, await connect(url) as late, await connect(url) as psql:
            reader = Reader(feed)
            await reader.copy()
            async with late.transaction():
                await late.execute("insert into account values ('late')")
                for name in ("b", "c"):
                    await psql.execute("insert into account values (%s)", [name])
                    assert keys(await reader.read()) == [name]
            assert keys(await reader.read()) == ["late"]
            assert reader.ids != sorted(reader.ids)
            assert await reader.read() == []

    run(story())


def test_what_ran_when_the_cursor_was_taken_is_not_taken_for_seen(url):
    """Its transaction is older than others that were read, its change is newer."""

    async def story():
        async with feed_of(url) as feed, await connect(url) as late, await connect(url) as psql:
            reader = Reader(feed)
            async with late.transaction():
                await late.execute("select pg_current_xact_id()")
                await psql.execute("insert into account values ('b')")
                await reader.copy()
                assert await reader.read() == []
                await late.execute("insert into account values ('late')")
            assert keys(await reader.read()) == ["late"]
            assert sorted(reader.rows) == ["b", "late"]

    run(story())


def test_one_key_comes_in_the_order_of_its_changes_whichever_transaction_is_older(url):
    async def story():
        async with feed_of(url) as feed, await connect(url) as older, await connect(url) as psql:
            reader = Reader(feed)
            await psql.execute("insert into account values ('a')")
            await reader.copy()
            async with older.transaction():
                await older.execute("select pg_current_xact_id()")
                await psql.execute("update account set balance = 2, version = 2")
                await older.execute("update account set balance = 3, version = 3")
            assert await reader.read() == [("update", "a", 2), ("update", "a", 3)]
            assert reader.rows["a"]["balance"] == 3

    run(story())


UPSERT = """
insert into account values ('a') on conflict (name) do update set version = account.version + 1
"""
BLOCKED = "select 1 from pg_stat_activity where wait_event_type = 'Lock' and pid = %s"


def test_who_waits_for_a_row_draws_his_number_when_he_has_it(url):
    async def story():
        async with (
            feed_of(url) as feed,
            await connect(url) as one,
            await connect(url) as other,
            await connect(url) as watch,
        ):
            reader = Reader(feed)
            await one.execute("insert into account values ('a')")
            await reader.copy()
            async with asyncio.TaskGroup() as group:
                async with one.transaction():
                    await one.execute("update account set version = version + 1")
                    waiting = group.create_task(other.execute(UPSERT))
                    pid = [other.info.backend_pid]

                    async def blocked():
                        return await (await watch.execute(BLOCKED, pid)).fetchall()

                    await eventually(blocked)
                    await one.execute("update account set version = version + 1")
                await waiting
            assert await reader.read() == [("update", "a", version) for version in (2, 3, 4)]

    run(story())


def test_what_was_rolled_back_never_comes_and_subtransactions_come_with_their_whole(url):
    async def story():
        async with feed_of(url) as feed, await connect(url) as psql:
            reader = Reader(feed)
            await reader.copy()
            async with psql.transaction(force_rollback=True):
                await psql.execute("insert into account values ('never')")
            async with psql.transaction():
                await psql.execute("insert into account values ('before')")
                async with psql.transaction(force_rollback=True):
                    await psql.execute("insert into account values ('undone')")
                async with psql.transaction():
                    await psql.execute("insert into account values ('inside')")
                assert await reader.read() == []
            assert keys(await reader.read()) == ["before", "inside"]
            assert await reader.read() == []

    run(story())


def test_what_changes_nothing_is_no_change(url):
    async def story():
        async with feed_of(url) as feed, await connect(url) as psql:
            reader = Reader(feed)
            await psql.execute("insert into account values ('a')")
            await reader.copy()
            await psql.execute("update account set balance = balance")
            await psql.execute("update account set secret = 'hush'")
            assert await reader.read() == []

    run(story())


def test_a_truncated_table_is_copied_anew_and_read_on_from_there(url):
    async def story():
        async with feed_of(url) as feed, await connect(url) as psql:
            reader = Reader(feed)
            await psql.execute("insert into account values ('a')")
            await reader.copy()
            await psql.execute("truncate account")
            for _ in range(2):  # until it copies
                with pytest.raises(Resync, match="account"):
                    await reader.read()
            assert await reader.read(topics=["vm"]) == []
            await reader.copy()
            await psql.execute("insert into account values ('b')")
            assert keys(await reader.read()) == ["b"]

    run(story())


def test_attaching_a_table_that_has_rows_asks_for_a_copy_and_detaching_ends_it(url):
    async def story():
        async with feed_of(url) as feed, await connect(url) as psql:
            reader = Reader(feed)
            await psql.execute("create table part (a int, b text, n int, primary key (a, b))")
            await psql.execute("insert into part values (1, 'x', 0)")
            await reader.copy()
            await psql.execute("select feed_attach('part', topic => 'parts')")
            with pytest.raises(Resync, match="parts"):
                await reader.read()
            await reader.copy()
            await psql.execute("update part set n = 1")
            assert await reader.read(topics=["parts"]) == [("update", '[1, "x"]', None)]
            await psql.execute("select feed_detach('part')")
            with pytest.raises(Resync, match="parts"):
                await reader.read()
            await reader.copy()
            await psql.execute("update part set n = 2")
            assert await reader.read() == []

    run(story())


@pytest.mark.parametrize(
    ("call", "why"),
    [
        ("feed_attach('bare')", "no primary key"),
        ("feed_attach('account', key => '{nobody}')", "no column nobody"),
        ("feed_attach('account', without => '{name}')", "left out"),
    ],
)
def test_a_table_that_cannot_be_followed_is_refused(url, call, why):
    with psycopg.connect(url) as connection:
        connection.execute("create table if not exists bare (n integer)")
        with pytest.raises(psycopg.Error, match=why):
            connection.execute(f"select {call}")


def test_renewals_of_a_lease_are_no_changes_but_members_and_leaders_are(url):
    async def story():
        async with feed_of(url, topics=["member", "leader"]) as feed:
            reader = Reader(feed)
            await reader.copy()
            async with node(url, "a", singletons={"one": idle}) as a:
                await eventually(lambda: renewed(a, 2))
                await eventually(lambda: a.rows("select 1 from leader where term = 1"))
                told = await reader.read()
                assert {op for op, _, _ in told} == {"insert", "update"}
                assert {key for _, key, _ in told} == {str(a.member_id), "one"}
                assert "renewal" not in reader.rows[str(a.member_id)]
                row = (await a.rows("select renewal from member"))[0]
                await eventually(lambda: renewed(a, row["renewal"] + 10))
                assert await reader.read() == []
            assert set(keys(await reader.read())) == {"one", str(a.member_id)}

    run(story())


async def idle(_leadership):
    await asyncio.sleep(60)


async def renewed(one, count):
    return await one.rows("select 1 from member where renewal >= %(n)s", n=count)
