"""What of a database's URL is looked up, and what is known of it later."""

from __future__ import annotations

import asyncio
import socket

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from resolvers import system_resolver

from engine_pg.db import addresses
from engine_pg.db.addresses import located
from engine_pg.db.faults import translated
from engine_pg.errors import DatabaseAway


@pytest.fixture
def resolver(monkeypatch):
    monkeypatch.delenv("PGHOSTADDR", raising=False)
    with system_resolver(monkeypatch, one=["192.0.2.1"], two=["192.0.2.1", "2001:db8::1"]) as found:
        yield found


async def place_of(url: str) -> tuple[object, object, object]:
    found = conninfo_to_dict(await located(url))
    return found.get("host"), found.get("hostaddr"), found.get("port")


@pytest.mark.usefixtures("resolver")
def test_a_name_is_given_with_all_its_addresses():
    async def main():
        assert await place_of("postgresql://u@one:7/d") == ("one", "192.0.2.1", "7")
        assert await place_of("host=two port=7") == ("two,two", "192.0.2.1,2001:db8::1", "7")

    asyncio.run(main())


@pytest.mark.parametrize(
    "url",
    [
        "dbname=d",
        "service=ours",
        "host=/run/postgresql",
        "host=@engine",
        "host=192.0.2.9",
        "host=2001:db8::9",
        "hostaddr=192.0.2.9",
        "host=mute hostaddr=192.0.2.9",
        "host=mute,one port=7",
    ],
)
def test_what_is_no_name_or_has_an_address_is_left_alone(resolver, url):
    assert asyncio.run(located(url)) == url
    assert resolver.asked == []


def test_an_address_from_the_environment_stands_for_every_name(resolver, monkeypatch):
    monkeypatch.setenv("PGHOSTADDR", "192.0.2.9")
    assert asyncio.run(located("host=mute")) == "host=mute"
    assert resolver.asked == []


@pytest.mark.parametrize("error", [socket.gaierror("unknown"), UnicodeError("no label")])
def test_a_name_that_is_not_found_is_a_database_that_is_away(resolver, error):
    resolver.known["bad"] = error
    with pytest.raises(psycopg.OperationalError, match="failed to resolve host 'bad'") as caught:
        asyncio.run(located("host=bad"))
    assert isinstance(translated(caught.value), DatabaseAway)


def test_a_server_that_moved_is_looked_for_where_it_is_now(resolver):
    async def main():
        assert await place_of("host=one") == ("one", "192.0.2.1", None)
        resolver.known["one"] = ["192.0.2.2"]
        assert await place_of("host=one") == ("one", "192.0.2.2", None)

    asyncio.run(main())


def test_an_event_loop_waits_for_nothing_that_another_one_asked(resolver):
    async def in_vain():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await located("host=late")

    async def answered():
        resolver.known["late"] = ["192.0.2.5"]
        async with asyncio.timeout(10):
            assert await place_of("host=late") == ("late", "192.0.2.5", None)
        assert not any(loop.is_closed() for loop in addresses._NAMES)

    asyncio.run(in_vain())
    asyncio.run(answered())
