"""A timer for many who wait equally long: nearly all of them are done when it would ring."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Protocol

_EARLY_S: Final = 0.001  # so much too early a timer may wake us


class Waiting(Protocol):
    """One who waits for an answer."""

    def done(self) -> bool:
        """Tell whether it waits no more."""
        ...

    def time_is_up(self) -> None:
        """Learn that the time is up."""
        ...


class Guard:
    """Tells those who still wait after so many seconds, in order; a timer of its own costs more."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._guarded: deque[tuple[float, Waiting]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, waiting: Waiting) -> None:
        """Tell this one when its time is up, unless it is done by then."""
        self._forget_the_done()
        loop = asyncio.get_running_loop()
        self._guarded.append((loop.time() + self._seconds, waiting))
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._ring)

    def _ring(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        now = loop.time() + _EARLY_S
        while self._guarded and self._guarded[0][0] <= now:
            _, waiting = self._guarded.popleft()
            if not waiting.done():
                waiting.time_is_up()
        self._forget_the_done()
        if self._guarded:
            self._timer = loop.call_at(self._guarded[0][0], self._ring)

    def _forget_the_done(self) -> None:
        while self._guarded and self._guarded[0][1].done():
            self._guarded.popleft()
