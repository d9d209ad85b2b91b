"""Names in the database's URL, and a resolver that says nothing any more."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress

import pytest
from integration.nodes import eventually, run
from resolvers import system_resolver

from engine_pg.db.database import Database, connect
from engine_pg.errors import DatabaseAway, EngineError
from engine_pg.formation.line import MonitorLine
from engine_pg.supervisor import Background

HERE = "127.0.0.1"
WRITE = "select pg_logical_emit_message(true, 'test', 'it takes writes')"


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


def test_a_failover_is_followed_while_nobody_answers_for_the_old_primary(replicated, resolver):
    old, new = replicated.pair.primary.link, replicated.pair.standby.link
    url = replicated.url_of(old, new)
    for name, link in (("old", old), ("new", new)):
        resolver.known[name] = [HERE]
        url = url.replace(f"{HERE}:{link.port}", f"{name}:{link.port}")

    async def written(db: Database) -> None:
        while True:
            with suppress(EngineError):
                await db.once(WRITE)
                return

    async def story():
        async with AsyncExitStack() as stack:
            nodes = [await stack.enter_async_context(Database(url, name=f"n{n}")) for n in range(6)]
            for db in nodes:
                await db.once(WRITE)
            asked = resolver.asked.count("old")
            del resolver.known["old"]
            old.cut()

            async def asked_in_vain() -> bool:
                return resolver.asked.count("old") > asked

            async with Background() as background:
                writers = [background.start(written(db), name="writer") for db in nodes]
                await eventually(asked_in_vain)
                await asyncio.to_thread(replicated.pair.promote)
                _, behind = await asyncio.wait(writers, timeout=3)
                assert not behind

    run(story(), bound_s=30)
