"""Replicas for tests: as a node has them, without the rest of the node."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from engine_pg.api.replicated import TABLES
from engine_pg.cluster.feed import Feed
from engine_pg.cluster.topics import CHANGES
from engine_pg.configuration.live import LiveSettings
from engine_pg.db.database import Database
from engine_pg.db.listener import Doorbells
from engine_pg.replica.reading import Reads
from engine_pg.replica.replica import Replica
from engine_pg.supervisor import Background


@dataclass(frozen=True)
class Readable:
    """One node's way to the database, and its replica."""

    db: Database
    replica: Replica
    reads: Reads
    bells: Doorbells


@asynccontextmanager
async def replica_of(
    url: str, *, ringing: bool = False, poll_s: float = 0.2, limit: int = 2000, **policy
) -> AsyncGenerator[Readable]:
    """Keep a replica while the block runs; without `ringing` no bell is heard."""
    async with AsyncExitStack() as stack:
        bells = Doorbells(url)
        database = Database(url, pool_max=4, away_s=0.5, on_commit=lambda: bells.ring(CHANGES))
        db = await stack.enter_async_context(database)
        background = await stack.enter_async_context(Background())
        if ringing:
            background.start(bells.run(), name="doorbells")
        replica = Replica(Feed(db, bells, limit=limit), bells, TABLES, poll_s=poll_s)
        background.start(replica.run(), name="replica")
        yield Readable(db, replica, Reads(replica, LiveSettings.of(**policy)), bells)
