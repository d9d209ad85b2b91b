"""Names in the database's URL, and a resolver that says nothing any more."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from integration.nodes import run
from resolvers import system_resolver

from engine_pg.db.database import Database, connect
from engine_pg.errors import DatabaseAway
from engine_pg.formation.line import MonitorLine

HERE = "127.0.0.1"


@pytest.fixture
def link(replicated):
    """Yield a link to the primary, whose name is `live`."""
    with replicated.private_link() as (link, _):
        yield link


@pytest.fixture
def resolver(monkeypatch):
    with system_resolver(monkeypatch, live=[HERE]) as resolver:
        yield resolver


def test_the_database_is_found_again_while_the_resolver_is_silent(replicated, link, resolver):
    async def story():
        url = replicated.url_of(link).replace(HERE, "live")
        async with Database(url, name="test") as db:
            assert await db.once("select 1 as one") == [{"one": 1}]
            resolver.known.clear()
            for _ in range(3):
                await asyncio.to_thread(link.reset)
                async with asyncio.timeout(2):
                    assert await db.once("select 1 as one") == [{"one": 1}]
        assert set(resolver.asked) == {"live"}

    run(story(), bound_s=20)
    assert not resolver.ended.is_set()


def test_a_dead_name_keeps_nobody_from_a_live_one(replicated, link, resolver):
    async def story():
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        hosts = f"dead:{link.port},live:{link.port}"
        url = replicated.url_of(link).replace(f"{HERE}:{link.port}", hosts)
        for _ in range(3):
            async with asyncio.timeout(2):
                connection = await connect(url, name="test")
            assert (connection.info.host, connection.info.hostaddr) == ("live", HERE)
            await connection.close()

    run(story(), bound_s=20)
    assert resolver.asked.count("dead") == 1  # who asks again waits for the same answer


def test_every_address_of_a_name_is_tried(replicated, link, resolver):
    async def story():
        resolver.known["live"] = ["127.0.0.2", HERE]
        connection = await connect(replicated.url_of(link).replace(HERE, "live"), name="test")
        assert connection.info.hostaddr == HERE
        await connection.close()

    run(story())


@pytest.mark.usefixtures("resolver")
def test_a_name_that_nobody_answers_for_is_waited_for_as_long_as_any_server(replicated, link):
    async def story():
        async with asyncio.timeout(5):
            with pytest.raises(DatabaseAway, match="no host answers"):
                await connect(replicated.url_of(link).replace(HERE, "dead"), name="test")

    run(story())


def test_a_monitor_is_asked_again_while_the_resolver_is_silent(replicated, link, resolver):
    async def story():
        line = MonitorLine(replicated.url_of(link).replace(HERE, "live"))
        assert await line.ask("select 1 as one") == [{"one": 1}]
        await line.close()
        resolver.known.clear()
        assert await line.ask("select 1 as one") == [{"one": 1}]
        await line.close()

    run(story())
