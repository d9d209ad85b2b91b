"""The end of the feed as one node reads it, for all of its streams: a window of pages.

It reads only while somebody listens. A page leads from one cursor to the next; who stands where a
page begins takes it and stands where it ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

from engine_pg.api.changes import wire
from engine_pg.api.changes.wire import Event
from engine_pg.cluster.feed import Changes, Cursor, Feed, Resync
from engine_pg.errors import DatabaseAway, EngineError, Unavailable

log = logging.getLogger(__name__)

_WINDOW_BYTES: Final = 16 << 20
_PAGES: Final = 2000
_SLICE: Final = 100
_RETRY_S: Final = 0.5
_START_S: Final = 3.0
_LEAVING_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Page:
    """What one read found."""

    end: Cursor
    events: Sequence[Event]

    @property
    def size_bytes(self) -> int:
        """What its events take."""
        return sum(len(event.content) for event in self.events)


class Tail:
    """The newest pages, and how many streams want them.

    `leaving` says why the node will soon be gone, and nothing while it stays.
    """

    def __init__(
        self, feed: Feed, *, window_bytes: int = _WINDOW_BYTES, leaving: Callable[[], str] = str
    ) -> None:
        self.feed = feed
        self.streams = 0
        self.closed = ""  # why there are no streams any more
        self._leaving = leaving
        self._window_bytes = window_bytes
        self._held_bytes = 0
        self._pages: dict[Cursor, Page] = {}  # by where they begin, the oldest first
        self._stand: Cursor | None = None
        self._moved = asyncio.Event()
        self._wanted = asyncio.Event()

    @property
    def stand(self) -> Cursor | None:
        """Where the last whole read ended; None: nobody reads, or the database never answered."""
        return self._stand

    def after(self, cursor: Cursor) -> Page | None:
        """Return the page that begins at a cursor, if it is still there."""
        return self._pages.get(cursor)

    async def moved(self, bound_s: float) -> bool:
        """Wait until there is another page, or the end, `bound_s` at most."""
        moved = self._moved
        with suppress(TimeoutError):
            async with asyncio.timeout(bound_s):
                await moved.wait()
        return moved.is_set()

    @asynccontextmanager
    async def listening(self, most: int) -> AsyncGenerator[None]:
        """Count a stream in; raises `Unavailable` when there are `most` of them, or no more."""
        self._check(most)
        self.streams += 1
        self._wanted.set()
        try:
            yield
        finally:
            self.streams -= 1
            if not self.streams:
                self._wanted.clear()

    async def standing(self) -> Cursor:
        """Return where the feed ends now; raises `DatabaseAway` when nobody can tell."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_START_S):
                while self._stand is None:
                    await self.moved(_START_S)
        if self._stand is None:
            raise DatabaseAway("no writable PostgreSQL tells of changes")
        return self._stand

    async def run(self) -> None:
        """Read for those who listen, and end all streams when the node leaves; until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._close_in_time())
            group.create_task(self._read())

    async def _close_in_time(self) -> None:
        while True:
            if (reason := self._leaving()) != self.closed:
                self.closed = reason
                self._tell()
            await asyncio.sleep(_LEAVING_S)

    async def _read(self) -> None:
        while True:
            await self._wanted.wait()
            try:
                async with self.feed.copy() as (_, cursor):
                    pass
                self._begin(cursor)
                await self._read_on(cursor)
            except Resync as resync:
                log.info("the streams of changes begin anew: %s", resync)
            except EngineError as error:
                log.info("the feed cannot be read for streams: %s", error)
                await asyncio.sleep(_RETRY_S)

    def _check(self, most: int) -> None:
        if self.closed:
            raise Unavailable(f"no changes are told here: {self.closed}; ask another node")
        if self.streams >= most:
            raise Unavailable(f"{self.streams} streams are open at this node; ask another one")

    async def _read_on(self, cursor: Cursor) -> None:
        pages = self.feed.follow(cursor, topics=wire.TOPICS)
        try:
            async for found in pages:
                await self._append(found)
                if not self.streams:
                    break
        finally:
            await pages.aclose()
            self._begin(None)

    def _begin(self, cursor: Cursor | None) -> None:
        self._pages.clear()
        self._held_bytes, self._stand = 0, cursor
        self._tell()

    async def _append(self, found: Changes) -> None:
        if found.cursor == found.start:
            return
        page = Page(found.cursor, await encoded(found))
        self._pages[found.start] = page
        self._held_bytes += page.size_bytes
        while self._held_bytes > self._window_bytes or len(self._pages) > _PAGES:
            first = next(iter(self._pages))
            if first == found.start:
                break
            self._held_bytes -= self._pages.pop(first).size_bytes
        if not found.cursor.until:
            self._stand = found.cursor
        self._tell()

    def _tell(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()


async def encoded(found: Changes) -> list[Event]:
    """Encode the changes of a read, a slice at a time: others have their turn between."""
    events: list[Event] = []
    for event in wire.events_of(found):
        events.append(event)
        if len(events) % _SLICE == 0:
            await asyncio.sleep(0)
    return events
