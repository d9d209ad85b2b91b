"""Who wants to write asks a standby again and again: one session there answers, for a moment."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from integration.nodes import eventually, run

from engine_pg.db import lookouts
from engine_pg.db.database import connect
from engine_pg.errors import DatabaseAway

SESSIONS = "select count(*) from pg_stat_activity where starts_with(application_name, 'asks')"


async def refused(url: str, times: int) -> None:
    for number in range(times):
        with pytest.raises(DatabaseAway, match="read-only"):
            await connect(url, name=f"asks {number}")


def gone_from(server):
    async def gone() -> bool:
        return server.ask(SESSIONS) == [(0,)]

    return gone


def test_who_asks_a_standby_again_opens_no_connection(replicated, monkeypatch):
    opened, reached = [], psycopg.AsyncConnection.connect.__func__

    async def counted(cls, conninfo="", **kwargs):
        opened.append(conninfo)
        return await reached(cls, conninfo, **kwargs)

    monkeypatch.setattr(psycopg.AsyncConnection, "connect", classmethod(counted))
    run(refused(replicated.url_of(replicated.pair.standby.link), 5))
    assert len(opened) == 1


def test_a_standby_that_was_promoted_is_taken_at_once_and_no_lookout_stays(replicated):
    async def story():
        standby = replicated.pair.standby
        url = replicated.url_of(standby.link)
        await refused(url, 2)
        await asyncio.to_thread(replicated.pair.promote)
        async with await connect(url, name="after") as after:
            assert after.timeline == standby.timeline
        await eventually(gone_from(standby))

    run(story())


def test_a_lookout_that_nobody_asks_leaves_the_standby(replicated, monkeypatch):
    monkeypatch.setattr(lookouts, "KEPT_S", 0.3)

    async def story():
        standby = replicated.pair.standby
        await refused(replicated.url_of(standby.link), 1)
        assert standby.ask(SESSIONS) == [(1,)]
        await eventually(gone_from(standby))

    run(story())


def test_a_lookout_that_was_lost_says_nothing(replicated):
    async def story():
        link = replicated.pair.standby.link
        url = replicated.url_of(link)
        await refused(url, 1)
        await asyncio.to_thread(link.reset)
        await refused(url, 1)
        await asyncio.to_thread(link.swallow)
        async with asyncio.timeout(2.5):
            await refused(url, 1)

    run(story())
