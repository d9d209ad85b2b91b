"""What one would write with PostgreSQL alone: `pg_advisory_lock` on a connection of a pool."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

import psycopg
from psycopg_pool import AsyncConnectionPool

from benchmarks.locks.contender import Contender, Node, Place
from engine_pg.ids import hash64

POOL: Final = 16
LOCK: Final = "select pg_advisory_lock(%s)"
UNLOCK: Final = "select pg_advisory_unlock(%s)"

_Connection = psycopg.AsyncConnection[Any]


class NaiveNode:
    """One pool: a lock occupies a connection, and lives and dies with it."""

    def __init__(self, pool: AsyncConnectionPool[_Connection]) -> None:
        self._pool = pool

    async def acquire(self, key: str, wait_s: float = 0.0) -> tuple[_Connection, int]:
        """Lock on a connection of the pool; waits in PostgreSQL, as long as it takes."""
        del wait_s
        number = hash64(key)
        connection = await self._pool.getconn()
        await connection.execute(LOCK, (number,))
        return connection, number

    async def release(self, held: tuple[_Connection, int]) -> None:
        """Unlock and give the connection back."""
        connection, number = held
        await connection.execute(UNLOCK, (number,))
        await self._pool.putconn(connection)

    async def settle(self) -> None:
        """Return at once: an unlock was answered."""

    async def footprint(self) -> dict[str, int | None]:
        """Return the connections that the pool keeps."""
        return {"memory_bytes": None, "stored_bytes": None, "connections": POOL}


def _pool(url: str) -> AsyncConnectionPool[_Connection]:
    return AsyncConnectionPool[_Connection](
        url, kwargs={"autocommit": True}, min_size=POOL, max_size=POOL, open=False
    )


@asynccontextmanager
async def _open(place: Place) -> AsyncGenerator[tuple[Node, Node]]:
    async with _pool(place.url) as one, _pool(place.url) as two:
        await one.wait()
        await two.wait()
        yield NaiveNode(one), NaiveNode(two)


NAIVE: Final = Contender(
    "naive",
    what=f"pg_advisory_lock on psycopg pools of {POOL} connections, on the same server as ours",
    durability="none: a lock is gone with its connection, and nothing is written",
    waiting="in PostgreSQL's lock queue, on the connection",
    open=_open,
    keeps_many="each lock occupies a connection",
)
