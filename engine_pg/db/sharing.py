"""One statement for all who wait for the same thing.

Who comes while a statement is under way is served by the next one: that one may have looked before
he came.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from engine_pg.errors import EngineError

T = TypeVar("T")


class _Turn(Generic[T]):
    def __init__(self) -> None:
        self.results: list[T] = []
        self.error: EngineError | None = None


class Shared(Generic[T]):
    """Something to be done after it was asked for, once for all who ask before it begins."""

    def __init__(self, do: Callable[[], Awaitable[T]]) -> None:
        self._do = do
        self._next: _Turn[T] = _Turn()
        self._busy = asyncio.Lock()

    async def done(self) -> T:
        """Return the result of a run that began after this call; raises its `EngineError`."""
        turn = self._next
        async with self._busy:
            if turn.error is not None:
                raise turn.error
            if not turn.results:  # nobody of this turn has done it yet, or not to its end
                if turn is self._next:
                    self._next = _Turn()
                try:
                    turn.results.append(await self._do())
                except EngineError as error:
                    turn.error = error
                    raise
        return turn.results[0]
