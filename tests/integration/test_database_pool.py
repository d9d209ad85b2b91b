"""Who waits for a connection of the pool and is cancelled is cancelled, at whatever moment."""

import asyncio

import pytest
from integration.nodes import run
from psycopg_pool import pool_async

from engine_pg.db.database import Database


async def cancelled_when_served(db, patch, *, turns: int) -> bool:
    """Cancel one who waits so many turns of the loop after the pool has a connection for him."""
    waiting, entered = asyncio.Event(), []
    begin, serve = pool_async.WaitingClient.wait, pool_async.WaitingClient.set

    async def wait(self, **options):
        waiting.set()
        return await begin(self, **options)

    async def cancelling(self, connection):
        accepted = await serve(self, connection)
        for _ in range(turns):
            await asyncio.sleep(0)
        late.cancel()
        return accepted

    async def read():
        async with db.read():
            entered.append(True)

    patch.setattr(pool_async.WaitingClient, "wait", wait)
    async with db.read():
        late = asyncio.ensure_future(read())
        await waiting.wait()
        patch.setattr(pool_async.WaitingClient, "set", cancelling)
    patch.undo()
    await asyncio.wait([late])
    assert not (late.cancelled() and entered)
    return late.cancelled()


@pytest.mark.parametrize("turns", range(5))
def test_a_cancellation_that_comes_with_the_connection_counts_and_loses_none(
    database_url, monkeypatch, turns
):
    async def story():
        async with Database(database_url, pool_max=1) as db:
            assert await cancelled_when_served(db, monkeypatch, turns=turns)
            async with db.read() as tx:
                assert await tx.first("select 1 as one") == {"one": 1}

    run(story())
