"""A process that writes: at a rate, to be timed at the other end, or as fast as it can.

It says "ready", begins at a line on its standard input, and says at the end what it has done.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, LiteralString

import psycopg
import uvloop

from benchmarks.locks.contender import library
from engine_pg.clock import boottime
from engine_pg.cluster.topics import CHANGES
from engine_pg.db.database import Database
from engine_pg.db.listener import Doorbells
from engine_pg.supervisor import Background

Kind = Literal["ours", "pubsub", "streams", "plain", "feed", "notify"]
Write = Callable[[int], Awaitable[object]]
CHANNEL: Final = "measured"
_RING_S: Final = 0.05
"""The last commit's ring is still on its way."""
TABLES: Final = """
create table measured (
  n bigint primary key, name text not null, status text not null default 'up',
  memory_bytes bigint not null default 1073741824, attrs jsonb not null default '{}',
  version bigint not null default 1
);
create table unmeasured (like measured including all);
select feed_attach('measured');
"""
INTO_FED: Final[LiteralString] = "insert into measured (n, name) values (%s, 'one of many')"
INTO_PLAIN: Final[LiteralString] = "insert into unmeasured (n, name) values (%s, 'one of many')"
WITH_NOTIFY: Final[LiteralString] = """
with written as (insert into unmeasured (n, name) values (%s, 'one of many') returning n)
select pg_notify('measured', '') from written
"""
BARE: Final[Mapping[str, LiteralString]] = {
    "plain": INTO_PLAIN,
    "feed": INTO_FED,
    "notify": WITH_NOTIFY,
}
QUIET: Final = "set engine_pg.rings = 'after commit'"


@dataclass(frozen=True, slots=True)
class Orders:
    """What a process is to write, where, how fast, for how long; its numbers begin at `first`."""

    url: str
    kind: Kind
    seconds: float
    writers: int
    rate: float = 0.0  # a second, of all its writers; 0: as fast as they can
    first: int = 0

    def text(self) -> str:
        """Return them as one word of a command line."""
        return json.dumps(asdict(self))


@asynccontextmanager
async def opened(orders: Orders) -> AsyncGenerator[list[Write]]:
    """Yield one way to write for each writer."""
    if orders.kind in ("pubsub", "streams"):
        client = library("redis.asyncio").Redis.from_url(orders.url)

        async def publish(n: int) -> None:
            await client.publish(CHANNEL, n)

        async def add(n: int) -> None:
            await client.xadd(CHANNEL, {"n": n})

        async with client:
            yield [publish if orders.kind == "pubsub" else add] * orders.writers
        return
    bells = Doorbells(orders.url)
    async with Background() as background:
        background.start(bells.run(), name="doorbells")
        way = _as_a_node if orders.kind == "ours" else _bare
        async with way(orders, lambda: bells.ring_soon(CHANGES)) as writes:
            yield writes


@asynccontextmanager
async def _as_a_node(orders: Orders, ring: Callable[[], None]) -> AsyncGenerator[list[Write]]:
    """Write as nodes do: a transaction of a pool, begun and committed."""
    many = orders.writers
    async with Database(orders.url, pool_min=many, pool_max=many, on_commit=ring) as db:

        async def write(n: int) -> None:
            async with db.write() as tx:
                await tx.run("insert into measured (n, name) values (%(n)s, 'one')", {"n": n})

        yield [write] * many


@asynccontextmanager
async def _bare(orders: Orders, ring: Callable[[], None]) -> AsyncGenerator[list[Write]]:
    """Write in one round trip each: what the server does is measured, not what Python does."""
    sessions = [
        await psycopg.AsyncConnection.connect(orders.url, autocommit=True)
        for _ in range(orders.writers)
    ]
    query = BARE[orders.kind]

    def way(session: psycopg.AsyncConnection[Any]) -> Write:
        async def write(n: int) -> None:
            await session.execute(query, [n], prepare=True)
            if orders.kind == "feed":
                ring()

        return write

    try:
        for session in sessions:
            await session.execute(QUIET)
        yield [way(session) for session in sessions]
    finally:
        for session in sessions:
            await session.close()


async def run(orders: Orders) -> None:
    """Write as ordered."""
    async with opened(orders) as writes:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        done: list[tuple[int, float]] = []
        began = boottime()

        async def writer(number: int, write: Write) -> None:
            turn = number
            while (now := boottime()) < began + orders.seconds:
                if orders.rate and (due := began + turn / orders.rate) > now:
                    await asyncio.sleep(due - now)
                await write(orders.first + turn)
                done.append((orders.first + turn, boottime()))
                turn += orders.writers

        async with asyncio.TaskGroup() as group:
            for number, write in enumerate(writes):
                group.create_task(writer(number, write))
        took_s = boottime() - began
        await asyncio.sleep(_RING_S)
    said = {"count": len(done), "took_s": took_s, "done": done if orders.rate else []}
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    uvloop.run(run(Orders(**json.loads(sys.argv[1]))))
