"""The looks of the demos at the database."""

from __future__ import annotations

import asyncio

import pytest
from integration.nodes import eventually, run

from engine_pg.demo import watch
from engine_pg.demo.watch import Watch

ASLEEP = "select 1 from pg_stat_activity where query like '%%pg_sleep(30)%%' and state = 'active'"
OTHERS = f"{ASLEEP} and pid <> pg_backend_pid()"


def test_a_look_that_was_cut_short_leaves_no_dead_connection_to_the_next(database_url, monkeypatch):
    monkeypatch.setattr(watch, "_BOUND_S", 0.5)

    async def story():
        async with Watch(database_url) as mine, Watch(database_url) as other:
            looking = asyncio.ensure_future(mine.rows("select pg_sleep(30)"))
            await eventually(lambda: other.rows(OTHERS))
            looking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await looking
            assert await mine.rows("select 1 as one") == [{"one": 1}]

    run(story())
