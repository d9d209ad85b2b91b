"""A node's copy of the cluster settings: always at hand, typed, and new soon after each change."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Final, Self

from engine_pg.cluster.feed import Feed, Resync
from engine_pg.configuration import store
from engine_pg.configuration.definition import ClusterSettings
from engine_pg.configuration.store import Book
from engine_pg.db.listener import Bell, Doorbells
from engine_pg.errors import EngineError

log = logging.getLogger(__name__)

_POLL_S: Final = 5.0


class LiveSettings:
    """What this node goes by; `now` is to be asked at each use and not kept."""

    def __init__(self, now: ClusterSettings | None = None) -> None:
        self.now = now or ClusterSettings()
        self.version = 0
        self._known = asyncio.Event()
        self._changed = asyncio.Event()

    @classmethod
    def of(cls, **values: object) -> Self:
        """Return settings that differ from the defaults and never change: for tests."""
        return cls(ClusterSettings.model_validate(values))

    async def known(self) -> None:
        """Wait until the database has told them for the first time."""
        await self._known.wait()

    async def follow(self, feed: Feed, bells: Doorbells) -> None:
        """Take each change soon, until cancelled; the last known ones stay while none answers.

        The bell is the settings' own: the feed's rings for every change of anything.
        """
        bell = bells.bell(store.TOPIC)
        while True:
            try:
                await self._follow(feed, bell)
            except Resync as resync:
                log.info("the settings are read anew: %s", resync)
            except EngineError as error:
                log.info("the settings could not be read: %s", error)
                await bell.wait(_POLL_S)

    async def _follow(self, feed: Feed, bell: Bell) -> None:
        async with feed.copy() as (tx, cursor):
            rows = {row["name"]: row for row in await tx.all(store.READ)}
        while True:
            self._take(store.book_of(list(rows.values())))
            await bell.wait(_POLL_S)
            found = await feed.read(cursor, topics=(store.TOPIC,))
            for change in found.changes:
                if change.row is None:
                    rows.pop(change.key, None)
                else:
                    rows[change.key] = store.told(change.row)
            cursor = found.cursor

    async def changed(self, bound_s: float) -> None:
        """Wait until a setting changes, `bound_s` at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(bound_s):
                await self._changed.wait()

    def _take(self, book: Book) -> None:
        self._known.set()
        if book.version == self.version and book.settings == self.now:
            return
        for name, why in book.refused.items():
            log.warning("the setting %s counts as its default: %s", name, why)
        for name in ClusterSettings.model_fields:
            before, after = getattr(self.now, name), getattr(book.settings, name)
            if before != after:
                log.info("the setting %s is now %s (was %s)", name, after, before)
        self.now, self.version = book.settings, book.version
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
