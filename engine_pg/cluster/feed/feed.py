"""The change feed as its readers see it: copy, then read on from the copy's cursor, for ever.

Of all that commits after the copy each change is delivered once for a cursor, and the changes of
one key in their order; a transaction that stays open delays only its own.

Does not promise: an order between the changes of different keys across reads. What a transaction
changed comes in one read, or in a run of pages whose last has `more` false.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from engine_pg.clock import Clock, boottime
from engine_pg.cluster.feed.change import Changes
from engine_pg.cluster.feed.cursor import Cursor
from engine_pg.cluster.feed.readers import Readers
from engine_pg.cluster.feed.reading import PLACE, READ, RECORD_EPOCH, changes_of, place_of
from engine_pg.cluster.feed.retention import FeedRetention, Keep
from engine_pg.cluster.topics import CHANGES
from engine_pg.db.database import Database
from engine_pg.db.listener import Doorbells
from engine_pg.db.tx import Record, Tx
from engine_pg.errors import DatabaseAway, OutcomeUnknown, Unavailable

log = logging.getLogger(__name__)

_LIMIT: Final = 2000
_PACE_S: Final = 0.004
"""Who follows reads so often at most, and a quarter as often while each read finds many."""
_MANY: Final = 8


class Feed:
    """Reads of the feed through a pool; `topics` (all, if not given) are tables' names."""

    def __init__(
        self,
        db: Database,
        bells: Doorbells,
        *,
        topics: Sequence[str] | None = None,
        poll_s: float = 1.0,
        proof_s: float = 5.0,
        limit: int = _LIMIT,
        name: str = "",
        clock: Clock = boottime,
    ) -> None:
        self._db = db
        self._bells = bells
        self._topics = topics
        self._poll_s = poll_s
        self._proof_s = proof_s
        self._limit = limit
        self._clock = clock
        self._readers = Readers(db, name, clock=clock)

    @asynccontextmanager
    async def copy(self) -> AsyncGenerator[tuple[Tx, Cursor]]:
        """Open a transaction that sees one snapshot, to copy from, with the cursor to read on from.

        It can't write: what it wrote would be taken for seen.
        """
        await self._record_epoch()
        async with self._db.read() as tx:
            row = await tx.first(PLACE)
            cursor = place_of(row) if row else None
            if cursor is None:
                raise DatabaseAway("a new epoch has begun this moment")
            yield tx, cursor

    async def read(
        self, cursor: Cursor, *, sync: bool = False, topics: Sequence[str] | None = None
    ) -> Changes:
        """Return what became visible since the cursor, or a first part of it.

        With `sync` the read is itself a replicated commit: what it saw (`seen`) holds all that any
        node was told is committed before it was sent. Raises `Resync` when the feed can't be
        followed from this cursor.
        """
        return await self._read(cursor, None, sync=sync, topics=topics)

    async def follow(
        self, cursor: Cursor, *, topics: Sequence[str] | None = None
    ) -> AsyncGenerator[Changes]:
        """Read on for ever, on the doorbell and at each poll; through every loss of the database.

        What finds nothing is yielded as well: all up to its cursor is known. A read in `proof_s` is
        a barrier, lest an old primary that was cut off be followed for ever. Raises `Resync`.
        """
        bell = self._bells.bell(CHANGES)  # before the first read: what comes after it rings
        me = object()
        proved_at = self._clock()
        try:
            while True:
                try:
                    began_at = self._clock()
                    sync = began_at - proved_at > self._proof_s
                    found = await self._read(cursor, me, sync=sync, topics=topics)
                except (Unavailable, OutcomeUnknown) as error:
                    log.info("cannot read the feed, trying again: %s", error)
                    await bell.wait(self._poll_s)
                    continue
                proved_at = began_at if sync else proved_at
                cursor = found.cursor
                yield found
                if not found.more and await bell.wait(self._poll_s):
                    pace_s = _PACE_S * (4 if len(found.changes) >= _MANY else 1)
                    await asyncio.sleep(began_at + pace_s - self._clock())
        finally:
            self._readers.gone(me)

    def ring(self) -> None:
        """Tell all who follow to look, after commits of sessions that leave it to their owner."""
        self._bells.ring_soon(CHANGES)

    def retention(self, keep: Keep = Keep()) -> FeedRetention:
        """Return what trims this feed; one node at a time needs to run it."""
        return FeedRetention(self._db, lambda: keep)

    async def _read(
        self, cursor: Cursor, who: object, *, sync: bool, topics: Sequence[str] | None
    ) -> Changes:
        topics = self._topics if topics is None else topics
        params: Record = {
            "sync": sync,
            "snapshot": cursor.snapshot,
            "until": cursor.until or None,
            "after": cursor.after,
            "topics": None if topics is None else list(topics),
            "limit": self._limit + 1,
        }
        rows = await self._db.once(READ, params, waits=True)
        seen = place_of(rows[0])
        if seen is None:
            await self._record_epoch()
            return await self._read(cursor, who, sync=sync, topics=topics)
        found = changes_of(cursor, seen, rows, self._limit)
        await self._readers.stands(who, found.cursor)
        return found

    async def _record_epoch(self) -> None:
        await self._db.once(RECORD_EPOCH)
