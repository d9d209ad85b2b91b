"""Ways to learn of what another process wrote: our feed, and two of Redis."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from benchmarks.feed.writer import CHANNEL, TABLES, Kind
from benchmarks.ground import Ground
from benchmarks.locks.contender import Foreign, free_ports, library, program
from benchmarks.locks.servers import served
from engine_pg.cluster.feed import Cursor, Feed
from engine_pg.db.database import Database
from engine_pg.db.listener import Doorbells
from engine_pg.supervisor import Background

Take = Callable[[int], None]


class Reader(Protocol):
    """Somebody who reads; cancelled and begun again, he goes on as well as he can."""

    url: str

    async def read(self, take: Take) -> None:
        """Hand over each number that comes, until cancelled."""
        ...


@dataclass(frozen=True, slots=True)
class Carrier:
    """A way to be told, and what it keeps."""

    kind: Kind
    what: str
    open: Callable[[Ground], AsyncGenerator[Reader]]


class OurReader:
    """A node that follows the feed: its copy is a dictionary."""

    def __init__(self, url: str, cursor: Cursor) -> None:
        self.url = url
        self._cursor = cursor
        self._copy: dict[str, object] = {}

    async def read(self, take: Take) -> None:
        """Follow from where it stands, over connections of its own."""
        bells = Doorbells(self.url)
        async with Database(self.url, pool_max=2) as db, Background() as background:
            background.start(bells.run(), name="doorbells")
            feed = Feed(db, bells, topics=["measured"])
            async with aclosing(feed.follow(self._cursor)) as following:
                async for found in following:
                    for change in found.changes:
                        self._copy[change.key] = change.row
                        take(int(change.key))
                    self._cursor = found.cursor


class RedisReader:
    """A client that subscribes to a channel, or reads a stream from the last id that it has."""

    def __init__(self, url: str, kind: Kind) -> None:
        self.url = url
        self._kind = kind
        self._last: Foreign = "0"

    async def read(self, take: Take) -> None:
        """Read over a connection of its own."""
        async with library("redis.asyncio").Redis.from_url(self.url) as client:
            if self._kind == "pubsub":
                await self._listen(client, take)
            while True:
                found = await client.xread({CHANNEL: self._last}, count=1000, block=1000)
                for _, entries in found:
                    for self._last, fields in entries:
                        take(int(fields[b"n"]))

    async def _listen(self, client: Foreign, take: Take) -> None:
        async with client.pubsub() as channel:
            await channel.subscribe(CHANNEL)
            async for message in channel.listen():
                if message["type"] == "message":
                    take(int(message["data"]))


async def _ours(place: Ground) -> AsyncGenerator[Reader]:
    with place.database() as url:
        async with Database(url, pool_max=1) as db:
            async with db.write() as tx:
                await tx.connection.execute(TABLES)
            async with Feed(db, Doorbells(url)).copy() as (_, cursor):
                pass
        yield OurReader(url, cursor)


async def _redis(kind: Kind, place: Ground) -> AsyncGenerator[Reader]:
    client = library("redis.asyncio")
    server = program("redis-server", "redis-server")
    (port,) = free_ports(1)
    command = (
        *(server, "--port", str(port), "--bind", "127.0.0.1", "--dir", "."),
        *("--save", "", "--appendonly", "yes", "--appendfsync", "everysec"),
    )
    url = f"redis://127.0.0.1:{port}"
    probe = client.Redis.from_url(url)
    folder = place.folder / f"redis-{kind}"
    async with probe, served(folder, *command, ready=probe.ping):
        yield RedisReader(url, kind)


@asynccontextmanager
async def opened(carrier: Carrier, place: Ground) -> AsyncGenerator[Reader]:
    """Open what a carrier needs."""
    async with aclosing(carrier.open(place)) as readers:
        async for reader in readers:
            yield reader


CARRIERS: Final = (
    Carrier(
        "ours",
        "a pool's transaction on one node, the feed followed on another; the commit is flushed",
        _ours,
    ),
    Carrier(
        "pubsub",
        "PUBLISH, and a subscriber; nothing is written down",
        partial(_redis, "pubsub"),
    ),
    Carrier(
        "streams",
        "XADD, and XREAD from the last id; appendfsync everysec",
        partial(_redis, "streams"),
    ),
)
