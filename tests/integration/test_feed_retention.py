"""What the feed keeps: for live readers, for late committers, and not for ever."""

from __future__ import annotations

import psycopg
import pytest
from integration.feeding import TABLES, Reader, connect, feed_of
from integration.nodes import eventually, run

from engine_pg.cluster.feed import Keep, Resync, readers, retention

NOTHING = Keep(age_s=0.0)
KEPT = "select count(*) from change where topic = 'account'"
ALL = "select count(*) from change"
WRITE = "insert into account select n from generate_series(1, %s) n"
GONE = "update feed_reader set read_at = read_at - interval '2 minutes'"
OLD = "update change set at = at - interval '2 days'"


@pytest.fixture
def url(fresh_database_url):
    with psycopg.connect(fresh_database_url) as connection:
        connection.execute(TABLES)
    return fresh_database_url


@pytest.fixture(autouse=True)
def recorded_at_once(monkeypatch):
    monkeypatch.setattr(readers, "_PERIOD_S", 0.0)


async def kept(psql, what=KEPT) -> int:
    return (await (await psql.execute(what)).fetchone())[0]


async def emptied(feed, psql, keep) -> None:
    """Trim all; what runs anywhere on the server, a vacuum too, holds it up for a moment."""

    async def nothing_is_left() -> bool:
        await feed.retention(keep).trim()
        return await kept(psql) == 0

    await eventually(nothing_is_left)


def test_what_a_live_reader_has_not_seen_is_kept_and_the_rest_is_trimmed(url):
    async def story():
        async with feed_of(url) as feed, feed_of(url) as behind, await connect(url) as psql:
            reader, slow = Reader(feed), Reader(behind)
            await reader.copy()
            await slow.copy()
            await slow.read()
            await psql.execute(WRITE, [10])
            await reader.read()
            await feed.retention(NOTHING).trim()
            assert await kept(psql) == 10
            assert len(await slow.read()) == 10
            await emptied(feed, psql, NOTHING)
            await psql.execute("insert into account values ('a')")
            for each in (reader, slow):
                assert len(await each.read()) == 1

    run(story())


@pytest.mark.parametrize("passes", ["gone", "old", "many"])
def test_a_reader_that_sleeps_too_long_is_passed_and_told_so(url, passes, caplog):
    keep = Keep(age_s=0.0, most_rows=5 if passes == "many" else 1000)

    async def story():
        async with feed_of(url) as feed, await connect(url) as psql:
            sleeper = Reader(feed)
            await sleeper.copy()
            await sleeper.read()
            await psql.execute(WRITE, [10])
            if passes == "gone":
                await psql.execute(GONE)
            elif passes == "old":
                await psql.execute(OLD)
            await emptied(feed, psql, keep)
            assert ("left behind" in caplog.text) == (passes != "gone")
            with pytest.raises(Resync, match="trimmed"):
                await sleeper.read()
            await sleeper.copy()
            assert len(sleeper.rows) == 10
            assert await sleeper.read() == []

    run(story())


def test_the_changes_of_a_late_committer_outlive_any_trimming_before_they_are_seen(url):
    async def story():
        async with feed_of(url) as feed, await connect(url) as late, await connect(url) as psql:
            reader = Reader(feed)
            await reader.copy()
            async with late.transaction():
                await late.execute("insert into account values ('late')")
                await psql.execute(WRITE, [10])
                assert len(await reader.read()) == 10
                await psql.execute(GONE)
                await psql.execute("delete from feed_reader")
                await feed.retention(NOTHING).trim()
            assert [key for _, key, _ in await reader.read()] == ["late"]

    run(story())


def test_young_changes_are_kept_though_nobody_reads(url):
    async def story():
        async with feed_of(url) as feed, await connect(url) as psql:
            reader = Reader(feed)
            await reader.copy()
            await psql.execute(WRITE, [10])
            assert not await feed.retention().trim()
            assert len(await reader.read()) == 10

    run(story())


def test_it_trims_in_slices_and_a_transaction_larger_than_one_is_trimmed_too(url, monkeypatch):
    monkeypatch.setattr(retention, "_SLICE", 4)

    async def story():
        async with feed_of(url) as feed, await connect(url) as psql:
            for name in range(100, 110):
                await psql.execute("insert into account values (%s)", [str(name)])
            await psql.execute(WRITE, [10])
            await psql.execute("insert into account values ('last')")
            left = [await kept(psql, ALL)]
            while await feed.retention(NOTHING).trim():
                left.append(await kept(psql, ALL))
            assert await kept(psql, ALL) == 0
            assert len(left) > 3
            assert left == sorted(set(left), reverse=True)

    run(story())


def test_what_a_restored_dump_brings_from_another_servers_future_is_not_read(url):
    async def story():
        async with feed_of(url) as feed, await connect(url) as psql:
            reader = Reader(feed)
            await psql.execute(WRITE, [10])
            await psql.execute("update change set xid = (xid::text::bigint + 1000000)::text::xid8")
            await reader.copy()
            assert await reader.read() == []
            await feed.retention().trim()
            assert await kept(psql) == 0

    run(story())
