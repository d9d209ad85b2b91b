"""The how-to for those who follow changes: its example and its SQL, as a reader tries them."""

from __future__ import annotations

import ast
import asyncio
import re
import signal

import pytest
from integration.nodes import eventually, run
from integration.test_cluster_example import HOW_TO, Service, cluster
from integration.test_cluster_library import execute

from engine_pg.cluster import schema

PAGE = (HOW_TO / "follow-changes.md").read_text()
(ATTACH,) = re.findall(r"^```sql\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
PYTHON = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def url(empty_database_url):
    schema.install(empty_database_url)
    execute(empty_database_url, ATTACH)
    execute(empty_database_url, "insert into price values ('tea', 150)")
    return empty_database_url


def test_the_pages_python_is_python():
    for text in PYTHON:
        assert compile(text, "page", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_two_tills_know_each_price_as_soon_as_it_is_written(url):
    tills = [Service(url, name, "prices.py") for name in ("till-1", "till-2")]

    async def all_say(line):
        async def said():
            return all(line in till.lines for till in tills)

        assert await eventually(said, 30), [till.lines for till in tills]

    async def story():
        await all_say("copied 1 prices")
        execute(url, "update price set cents = 160, version = 2")
        await all_say("tea costs 160")
        execute(url, "insert into price values ('milk', 90, 55)")
        await all_say("milk costs 90")
        execute(url, "delete from price where article = 'tea'")
        await all_say("tea costs None")
        execute(url, "truncate price")
        await all_say("copied 0 prices")

    try:
        run(story())
    finally:
        ended = [till.end(signal.SIGTERM) for till in tills]
    assert ended == [0, 0]


def test_a_fenced_write_is_followed_and_a_cursor_that_was_kept_goes_on(url):
    async def story():
        async with cluster(url, "a") as a, cluster(url, "b") as b:
            async with b.feed.copy() as (_, cursor):
                pass
            leading = asyncio.Event()

            async def raise_prices(leadership):
                async with a.fenced(leadership) as tx:
                    await tx.run("update price set cents = cents + 1")
                leading.set()
                await asyncio.sleep(30)

            a.lead("inflation", raise_prices)
            await leading.wait()
            kept = type(cursor).parse(str(cursor))
            found = await b.feed.read(kept, sync=True)
            assert [(each.key, each.row["cents"]) for each in found.changes] == [("tea", 151)]
            assert "cost_cents" not in found.changes[0].row
            assert found.cursor.covers(found.seen)

    run(story())


def test_uninstalling_detaches_the_tables_and_leaves_them(url):
    schema.uninstall(url)
    execute(url, "insert into price values ('milk', 90)")
    assert execute(url, "select count(*) from price") == [(2,)]
