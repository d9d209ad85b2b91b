"""What a change costs its writer: the same inserts with the feed, without, and with a NOTIFY.

A commit takes 10 ms, as it does with a standby some way off: `commit_delay` makes the one that
flushes wait for so long, and the others with it.
"""

from __future__ import annotations

import statistics
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import psycopg
from psycopg import sql

from benchmarks.feed.carriers import OurReader
from benchmarks.feed.part import Found, Part
from benchmarks.feed.writer import TABLES, Kind, Orders
from benchmarks.feed.writing import writing
from benchmarks.ground import COMMIT, Ground, Missing
from benchmarks.locks.rounds import rotated
from engine_pg.clock import boottime
from engine_pg.cluster.feed import Feed
from engine_pg.db.database import Database
from engine_pg.db.listener import Doorbells
from engine_pg.supervisor import Background

PROCESSES: Final = 4
WRITERS: Final = 8  # of each
ROUNDS: Final = 5
WAYS: Final[Mapping[str, Kind]] = {
    "feed": "feed",
    "plain": "plain",
    "notify": "notify",
    "followed": "feed",  # while somebody follows, on the same processors
}
DELAY_US: Final = 10_000
_COMMITS: Final = 30


async def measure(place: Ground, seconds: float) -> Found:
    """Measure in alternating rounds."""
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    followed: list[int] = []
    with place.database() as url:
        _slow_down(place.admin_url, url)
        async with Database(url, pool_max=1) as db:
            async with db.write() as tx:
                await tx.connection.execute(TABLES)
            for number in range(ROUNDS):
                for turn, way in enumerate(rotated(list(WAYS), number)):
                    first = (number * len(WAYS) + turn) * PROCESSES
                    writing_s = seconds / 2
                    async with _follower(db, followed, follows=way == "followed"):
                        rates[way].append(await _rate(url, WAYS[way], writing_s, first))
        commit_ms = _commit_ms(url)
    details: dict[str, Any] = {
        "writers": PROCESSES * WRITERS,
        "commit_ms": commit_ms,
        "rounds": ROUNDS,
        "read_by_the_follower": len(followed),
        **{way: {"commits_per_s": round(statistics.median(rates[way]), 1)} for way in WAYS},
    }
    return Found(details, ratios=ratios(rates))


def ratios(rates: Mapping[str, Sequence[float]]) -> dict[str, float | None]:
    """Return the medians of the ratios within each round."""
    return {
        "writes_vs_plain": _ratio(rates["feed"], rates["plain"]),
        "writes_vs_notify": _ratio(rates["feed"], rates["notify"]),
        "writes_followed_vs_plain": _ratio(rates["followed"], rates["plain"]),
    }


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    each = [one / other for one, other in zip(ours, theirs, strict=True)]
    return round(statistics.median(each), 3)


@asynccontextmanager
async def _follower(db: Database, followed: list[int], *, follows: bool) -> AsyncGenerator[None]:
    """Let somebody follow the feed during the block."""
    if not follows:
        yield
        return
    async with Feed(db, Doorbells(db.url)).copy() as (_, cursor):
        pass
    async with Background() as background:
        background.start(OurReader(db.url, cursor).read(followed.append), name="follower")
        yield


async def _rate(url: str, kind: Kind, seconds: float, first: int) -> float:
    """Return how many commits a second all writers did."""
    orders = [
        Orders(url, kind, seconds, WRITERS, first=(first + each) * 1_000_000)
        for each in range(PROCESSES)
    ]
    async with writing(*orders) as writers:
        return sum(said["count"] / said["took_s"] for said in await writers.run())


def _slow_down(admin_url: str, url: str) -> None:
    with psycopg.connect(admin_url, autocommit=True) as admin:
        name = sql.Identifier(url.rpartition("/")[2].partition("?")[0])
        for setting, value in (("commit_delay", DELAY_US), ("commit_siblings", 0)):
            query = sql.SQL("alter database {} set {} = {}")
            words = (name, sql.Identifier(setting), sql.Literal(value))
            try:
                admin.execute(query.format(*words))
            except psycopg.errors.InsufficientPrivilege as error:
                raise Missing("only a superuser may slow commits down") from error


def _commit_ms(url: str) -> float:
    took_s: list[float] = []
    with psycopg.connect(url, autocommit=True) as session:
        for _ in range(_COMMITS):
            began = boottime()
            session.execute(COMMIT)
            took_s.append(boottime() - began)
    return round(1000 * statistics.median(took_s), 3)


PART: Final = Part(
    measure,
    ratios=("writes_vs_plain", "writes_vs_notify", "writes_followed_vs_plain"),
)
