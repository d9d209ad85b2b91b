"""Locks of one node beside the naive way: `pg_advisory_lock` on a connection of a pool of 16.

Each client takes a lock that nobody else wants and gives it back, over and over. Ours are durable
when they are granted, carry a fencing token, survive their connection, and need one connection for
all; of the naive ones a lock lives and dies with a connection that it occupies. Rounds of both are
measured in turn, in one run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import psycopg
import uvloop
from psycopg_pool import AsyncConnectionPool
from rich.console import Console
from rich.table import Table

from benchmarks.ground import database, machine
from engine_pg.clock import boottime
from engine_pg.cluster.locks import LockKey, Wanted
from engine_pg.cluster.membership import Membership
from engine_pg.cluster.ops import Identity
from engine_pg.db.database import Database
from engine_pg.db.listener import Doorbells
from engine_pg.ids import new_id
from engine_pg.supervisor import Background

CLIENTS: Final = (1, 64)
POOL: Final = 16
ROUNDS: Final = 10
_WARM_UP_S: Final = 0.5
LOCK: Final = "select pg_advisory_lock(%s)"
UNLOCK: Final = "select pg_advisory_unlock(%s)"


class Contender(Protocol):
    """A way to lock."""

    async def pair(self, client: int) -> None:
        """Acquire the client's own lock and release it."""
        ...

    async def settle(self) -> None:
        """Return when everything released is released."""
        ...


class Ours:
    """The locks of a member."""

    def __init__(self, membership: Membership) -> None:
        self._locks = membership.locks

    async def pair(self, client: int) -> None:
        """Acquire a durable grant; its release goes with the next batch."""
        self._locks.release(await self._locks.acquire(Wanted(LockKey("benchmark", str(client)))))

    async def settle(self) -> None:
        """Take one more lock: operations are carried in order."""
        await self.pair(-1)


class Naive:
    """Advisory locks of PostgreSQL, each on a connection that it occupies."""

    def __init__(self, pool: AsyncConnectionPool[psycopg.AsyncConnection[Any]]) -> None:
        self._pool = pool

    async def pair(self, client: int) -> None:
        """Lock and unlock on one connection."""
        async with self._pool.connection() as connection:
            await connection.execute(LOCK, (client,))
            await connection.execute(UNLOCK, (client,))

    async def settle(self) -> None:
        """Return at once: an unlock was answered."""


@asynccontextmanager
async def contenders(url: str) -> AsyncGenerator[dict[str, Contender]]:
    """Yield both ways, ready to lock."""
    pool = AsyncConnectionPool[psycopg.AsyncConnection[Any]](
        url, kwargs={"autocommit": True}, min_size=POOL, max_size=POOL, open=False
    )
    bells = Doorbells(url)
    async with pool, Database(url) as db, Background() as background:
        await pool.wait()
        membership = Membership(db, Identity(new_id(), "benchmark"), bells=bells)
        await membership.join()
        background.start(bells.run(), name="doorbells")
        background.start(membership.run(), name="member")
        yield {"ours": Ours(membership), "naive": Naive(pool)}


@dataclass(frozen=True, slots=True)
class Round:
    """What one round measured."""

    latencies_s: Sequence[float]
    took_s: float

    @property
    def rate(self) -> float:
        """Pairs per second."""
        return len(self.latencies_s) / self.took_s


async def measured(contender: Contender, clients: int, seconds: float) -> Round:
    """Let so many clients lock and unlock for so long."""
    latencies_s: list[float] = []
    began = boottime()

    async def client(number: int) -> None:
        now = boottime()
        while now - began < seconds:
            await contender.pair(number)
            before, now = now, boottime()
            latencies_s.append(now - before)

    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(client(number))
    await contender.settle()
    return Round(latencies_s, boottime() - began)


async def compared(url: str, seconds: float) -> dict[str, Any]:
    """Measure both ways in turn and return the report."""
    rounds: dict[tuple[str, int], list[Round]] = {}
    async with contenders(url) as ways:
        for way in ways.values():
            await measured(way, max(CLIENTS), _WARM_UP_S)
        for _ in range(ROUNDS):
            for clients in CLIENTS:
                for name, way in ways.items():
                    one = await measured(way, clients, seconds / ROUNDS)
                    rounds.setdefault((name, clients), []).append(one)
    return {
        "ratios": {f"naive_{n}": _ratio(rounds["ours", n], rounds["naive", n]) for n in CLIENTS},
        **{name: {str(n): _figures(rounds[name, n]) for n in CLIENTS} for name in ways},
        "machine": machine(url),
    }


def _ratio(ours: Sequence[Round], others: Sequence[Round]) -> float:
    """Return the median of how many times as many pairs ours made in the same round."""
    pairs = zip(ours, others, strict=True)
    return round(statistics.median(one.rate / other.rate for one, other in pairs), 3)


def _figures(rounds: Sequence[Round]) -> dict[str, float]:
    latencies_ms = [1000 * latency for one in rounds for latency in one.latencies_s]
    hundredths = statistics.quantiles(latencies_ms, n=100)
    return {
        "pairs": len(latencies_ms),
        "pairs_per_s": round(len(latencies_ms) / sum(one.took_s for one in rounds), 1),
        "p50_ms": round(hundredths[49], 3),
        "p99_ms": round(hundredths[98], 3),
    }


def _show(report: dict[str, Any]) -> None:
    table = Table("locks", "clients", "pairs/s", "p50 ms", "p99 ms", "ours to theirs")
    for clients in map(str, CLIENTS):
        for name in ("ours", "naive"):
            figures = report[name][clients]
            ratio = "" if name == "ours" else f"{report['ratios'][f'naive_{clients}']:.2f}"
            numbers = [f"{figures[key]:.1f}" for key in ("pairs_per_s", "p50_ms", "p99_ms")]
            table.add_row(name, clients, *numbers, ratio)
    console = Console(highlight=False)
    console.print(table)
    console.print(", ".join(f"{name} {value}" for name, value in report["machine"].items()))


def main() -> None:
    """Measure, show and write down."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.locks", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there")
    parser.add_argument(
        "--seconds", type=float, default=5.0, metavar="N", help="for each figure, 5 unless told"
    )
    given = parser.parse_args()
    with database() as url:
        report = uvloop.run(compared(url, given.seconds))
    _show(report)
    if given.json:
        given.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
