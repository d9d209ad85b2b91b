"""One consumer of the changes: a position, and what comes after it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Final

from engine_pg.api.changes import wire
from engine_pg.api.changes.tail import Tail, encoded
from engine_pg.api.changes.wire import Event
from engine_pg.cluster.feed import Cursor, Feed, Resync
from engine_pg.errors import OutcomeUnknown, Unavailable

_CHUNK_BYTES: Final = 1 << 16
_RETRY_S: Final = 0.2


FIRST: Final = """
select (select horizon::text from feed_horizon where epoch_id = %(epoch)s) as horizon,
       coalesce((select max(change_id) from change
                  where op = 'resync' and topic = any(%(topics)s::text[])), 0) as after
"""


async def beginning(feed: Feed, topics: Sequence[str]) -> Cursor:
    """Return where the oldest changes begin that are kept and can be told one by one."""
    async with feed.copy() as (tx, cursor):
        row = await tx.first(FIRST, {"epoch": cursor.epoch_id, "topics": list(topics)})
    assert row is not None
    oldest = max(3, int(row["horizon"] or 0))
    return Cursor(cursor.epoch_id, f"{oldest}:{oldest}:", cursor.snapshot, row["after"])


class Stream:
    """Where a consumer stands, and of which topics it hears."""

    def __init__(self, tail: Tail, position: Cursor, topics: Collection[str]) -> None:
        self.position = position
        self._tail = tail
        self._topics = frozenset(topics)

    async def next(self, bound_s: float) -> list[bytes]:
        """Return what comes next, in pieces to send; nothing: nothing happened in `bound_s`.

        A wait that the tail's end cuts short returns nothing as well.
        """
        if page := self._tail.after(self.position):
            self.position = page.end
            return list(self._pieces(page.events))
        target = self._target()
        if target is None:
            await self._tail.moved(bound_s)
            return []
        try:
            try:
                found = await self._tail.feed.read(target, topics=sorted(self._topics))
            except Resync as told:
                return [await self.begin_anew(str(told))]
        except (Unavailable, OutcomeUnknown):  # the database is away: it may come back
            await asyncio.sleep(min(_RETRY_S, bound_s))
            return []
        self.position = found.cursor
        return list(self._pieces(await encoded(found)))

    async def rest(self) -> tuple[bool, list[bytes]]:
        """Return whether there is more than what comes next, and that; raises `Resync`."""
        found = await self._tail.feed.read(self.position, topics=sorted(self._topics))
        self.position = found.cursor
        return found.more, list(self._pieces(await encoded(found)))

    async def begin_anew(self, reason: str) -> bytes:
        """Take the present end of the feed as position; return the event that says so."""
        async with self._tail.feed.copy() as (_, cursor):
            self.position = cursor
        return wire.resync(cursor, reason)

    def _target(self) -> Cursor | None:
        """Return what to read in order to stand where a page begins; None: wait for the tail."""
        here, stand = self.position, self._tail.stand
        if here.until:  # half way already
            return here
        if stand is None or here == stand:
            return None
        if here.epoch_id != stand.epoch_id:
            return here  # the feed tells what became of it
        if stand.covers(here):
            return replace(here, until=stand.snapshot, after=0)
        return None  # another node's cursor is ahead of this tail, for a moment

    def _pieces(self, events: Sequence[Event]) -> Iterator[bytes]:
        piece = bytearray()
        for event in events:
            if event.topic in self._topics:
                piece += event.content
                if len(piece) >= _CHUNK_BYTES:
                    yield bytes(piece)
                    piece.clear()
        if piece:
            yield bytes(piece)
