"""The change feed: nothing lost, nothing twice, one key in order, whatever writers do."""

from __future__ import annotations

from contextlib import aclosing

import psycopg
import pytest
from integration.feeding import TABLES, Reader, connect, feed_of
from integration.nodes import run


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
