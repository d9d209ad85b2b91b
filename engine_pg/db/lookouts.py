"""Sessions on servers that take no writes yet, kept for a moment to be asked again.

While a standby becomes the primary, everybody tries to connect to it, again and again. A connection
costs both ends some ten milliseconds of work, for TLS and the password, and all of them together
the time that the promotion itself takes. A question costs nothing.

Does not promise: that who is told of a writable server finds it writable. He connects as always.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import psycopg

from engine_pg.clock import boottime

KEPT_S: Final = 2.0
"""A session keeps a server from an orderly end, and tells nothing new to who asks seldom."""

Session = TypeVar("Session", bound=psycopg.AsyncConnection[Any])


@dataclass(slots=True)
class _Kept(Generic[Session]):
    session: Session
    loop: asyncio.AbstractEventLoop
    until: float
    asked: int = 0

    @property
    def good(self) -> bool:
        return self.loop is asyncio.get_running_loop() and boottime() < self.until


class Lookouts(Generic[Session]):
    """At most one session at each place that takes no writes."""

    def __init__(self, is_closed: Callable[[Session], Awaitable[bool]]) -> None:
        self._is_closed = is_closed
        self._kept: dict[str, _Kept[Session]] = {}

    def post(self, place: str, session: Session) -> None:
        """Keep a session at a place that takes no writes, for a moment."""
        self._relieve(place)
        loop = asyncio.get_running_loop()
        self._kept[place] = kept = _Kept(session, loop, boottime() + KEPT_S)
        loop.call_later(KEPT_S, self._expire, place, kept)

    async def closed(self, place: str) -> bool:
        """Say whether somebody there knows that it still takes no writes."""
        kept = self._kept.get(place)
        if kept is None:
            return False
        closed = False
        if kept.good:
            kept.asked += 1
            try:
                closed = await self._is_closed(kept.session)
            except psycopg.Error:
                pass  # it is lost, and knows nothing
            finally:
                kept.asked -= 1
        if not (closed and kept.good):
            self._expire(place, kept)
        return closed

    def _expire(self, place: str, kept: _Kept[Session]) -> None:
        if self._kept.get(place) is kept:
            self._relieve(place)
        elif not kept.asked:
            kept.session.pgconn.finish()

    def _relieve(self, place: str) -> None:
        """Send one away; whoever is just asking him sees to his end."""
        if (kept := self._kept.pop(place, None)) is not None and not kept.asked:
            kept.session.pgconn.finish()
