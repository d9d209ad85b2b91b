"""What waits to be sent over a lock session, in order, and what goes together in one batch."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from itertools import accumulate, islice
from typing import Final

from engine_pg.cluster.ops import Part
from engine_pg.errors import EngineError, MemberEnded

MAX_BATCH: Final = 256
MAX_KEYS: Final = 1024
"""So many keys in a batch, unless one operation has more: its time grows faster than they do."""


class Outbox:
    """A queue of operations; what failed together is tried again one by one."""

    def __init__(self) -> None:
        self._queue: deque[Part] = deque()
        self._singly = 0  # operations that go one by one: one of them fails its batch

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def together(self) -> int:
        """How many of those that wait a batch may carry together."""
        return 0 if self._singly else len(self._queue)

    def put(self, part: Part) -> None:
        """Put an operation at the end."""
        self._queue.append(part)

    def gather(self) -> list[Part]:
        """Take out what the next batch carries."""
        parts = list(islice(self._queue, 1 if self._singly else MAX_BATCH))
        keys = list(accumulate([part.size for part in parts]))
        del parts[max(1, bisect_right(keys, MAX_KEYS)) :]
        for _ in parts:
            self._queue.popleft()
        self._singly = max(0, self._singly - len(parts))
        return parts

    def put_back(self, parts: Sequence[Part], error: EngineError, *, lost: bool) -> None:
        """Queue a failed batch for the next session; what fails alone is not tried again.

        `lost`: it failed through no operation of its own.
        """
        self._singly = 0 if lost else len(parts)
        for part in reversed(parts):
            if part.repeat and (lost or len(parts) > 1):
                self._queue.appendleft(part)
            else:
                part.fail(error)

    def put_first(self, parts: Sequence[Part]) -> None:
        """Put operations before all others, as they are."""
        self._queue.extendleft(reversed(parts))

    def end(self, error: MemberEnded) -> None:
        """Fail all that wait: nothing is sent any more."""
        while self._queue:
            self._queue.popleft().fail(error)
