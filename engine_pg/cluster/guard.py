"""A timer for many who wait equally long: nearly all of them are done when it would ring."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

_EARLY_S: Final = 0.001  # so much too early a timer may wake us


class Waiting(Protocol):
    """One who waits for an answer."""

    def time_is_up(self) -> None:
        """Learn that the time is up."""
        ...


class Guard:
    """Tells those who still wait after so many seconds, in order; a timer each would cost more."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._guarded: dict[Waiting, float] = {}  # in the order in which their time is up
        self._timer: asyncio.TimerHandle | None = None

    def add(self, waiting: Waiting) -> None:
        """Tell this one when its time is up, unless it is dropped by then."""
        loop = asyncio.get_running_loop()
        self._guarded[waiting] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._ring)

    def drop(self, waiting: Waiting) -> None:
        """Forget one that waits no more."""
        self._guarded.pop(waiting, None)

    def _ring(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time() + _EARLY_S
        try:
            while self._guarded and self._next_at() <= now:
                waiting = next(iter(self._guarded))
                del self._guarded[waiting]
                waiting.time_is_up()
        finally:  # the defect of one must not keep it from the others
            at = self._next_at() if self._guarded else None
            self._timer = None if at is None else loop.call_at(at, self._ring)

    def _next_at(self) -> float:
        return next(iter(self._guarded.values()))
