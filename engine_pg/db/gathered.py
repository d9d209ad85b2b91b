"""Many callers, one statement: what is asked for while one is under way goes with the next.

Whoever finds nobody at work works for all that wait, once, and hands over to the first of those who
came meanwhile. So there is no task to be kept, and each caller is served by a statement that began
after he asked.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar, cast

from engine_pg.errors import EngineError, OutcomeUnknown, Unavailable

K = TypeVar("K")
V = TypeVar("V")

MOST: Final = 256


class _Asked(Generic[K, V]):
    """A key, and whether its caller was told: the answer, or that it is his turn to work."""

    __slots__ = ("answer", "answered", "error", "key", "told")

    def __init__(self, key: K) -> None:
        self.key = key
        self.told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.answered = False
        self.answer: V | None = None
        self.error: BaseException | None = None

    def settle(self, answer: V | None, error: BaseException | None = None) -> None:
        self.answered, self.answer, self.error = True, answer, error
        self.tell()

    def tell(self) -> None:
        if not self.told.done():
            self.told.set_result(None)

    def result(self) -> V:
        if self.error is not None:
            raise self.error
        return cast("V", self.answer)


class Gathered(Generic[K, V]):
    """Answers of `work`, which takes keys and returns as many answers, in their order.

    What `work` refuses for several is tried one by one: only the wrong one fails.
    """

    def __init__(self, work: Callable[[Sequence[K]], Awaitable[Sequence[V]]]) -> None:
        self._work = work
        self._waiting: deque[_Asked[K, V]] = deque()
        self._busy = False

    async def ask(self, key: K) -> V:
        """Return the answer for a key, or raise its error."""
        mine = _Asked[K, V](key)
        self._waiting.append(mine)
        if self._busy:
            await self._told(mine)
        if not mine.answered:  # nobody is at work, or it is our turn
            self._busy = True
            await self._serve(mine)
        return mine.result()

    async def _told(self, mine: _Asked[K, V]) -> None:
        try:
            await mine.told
        except asyncio.CancelledError:
            if mine.told.done() and not mine.told.cancelled() and not mine.answered:
                self._waiting.remove(mine)
                self._hand_over()
            elif mine in self._waiting:
                self._waiting.remove(mine)
            raise

    async def _serve(self, mine: _Asked[K, V]) -> None:
        batch = [self._waiting.popleft() for _ in range(min(MOST, len(self._waiting)))]
        try:
            await self._settle(batch)
        except asyncio.CancelledError:  # of ours alone: the others still wait
            self._waiting.extendleft(
                each for each in reversed(batch) if each is not mine and not each.answered
            )
            raise
        finally:
            self._hand_over()

    async def _settle(self, batch: Sequence[_Asked[K, V]]) -> None:
        try:
            answers = await self._work([each.key for each in batch])
        except EngineError as error:
            if len(batch) > 1 and not isinstance(error, Unavailable | OutcomeUnknown):
                for each in batch:
                    await self._settle([each])
            else:
                _refuse(batch, error)
        except Exception as error:  # noqa: BLE001 - each caller raises it
            _refuse(batch, error)
        else:
            for each, answer in zip(batch, answers, strict=True):
                each.settle(answer)

    def _hand_over(self) -> None:
        """Let the first who waits work next."""
        while self._waiting and self._waiting[0].told.cancelled():
            self._waiting.popleft()
        if self._waiting:
            self._waiting[0].tell()
        else:
            self._busy = False


def _refuse(batch: Sequence[_Asked[K, V]], error: Exception) -> None:
    for each in batch:
        each.settle(None, error)
