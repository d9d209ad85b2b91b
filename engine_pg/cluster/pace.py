"""When the next batch goes: before the answers of the last one are told, or after.

    after    server  ▓▓▓▓▓▓▓▓▓▓c        ▓▓▓▓▓▓▓▓▓▓c          one commit (c) for everybody, but the
             client            ░░░░░░░░           ░░░░░░░░   server idles while they are told
    before   server  ▓▓▓▓▓c▓▓▓▓▓c▓▓▓▓▓c▓▓▓▓▓c▓▓▓▓▓c          two halves take turns: nobody idles,
             client        ░░░░  ░░░░  ░░░░  ░░░░            for one commit more

So it depends on which is dearer: the commit, or to tell everybody (and to let them ask again).

Does not promise: anything but speed. The order of batches and answers is the same.
"""

from __future__ import annotations

import asyncio
from typing import Final

from engine_pg.clock import boottime
from engine_pg.cluster.batch import Answers

LEAST: Final = 16
"""With fewer requests than these it is one batch: its commit is dearer than their telling."""
_WEIGHT: Final = 0.25


class Pace:
    """What a commit and the telling of one answer took of late."""

    def __init__(self) -> None:
        self._commit_s = 0.0
        self._told_s = 0.0

    def committed(self, seconds: float) -> None:
        """Note what a batch took beyond its work: the commit, and the way to the server."""
        self._commit_s += (seconds - self._commit_s) * _WEIGHT

    def told(self, many: int, seconds: float) -> None:
        """Note how long it took to tell some answers and to let those who asked go on."""
        self._told_s += (seconds / many - self._told_s) * _WEIGHT

    def first(self, answers: int, queued: int, most: int) -> int:
        """Return how many of the answers to tell before the next batch goes.

        `queued` operations wait already; a batch carries `most`.
        """
        if answers == 0 or queued >= most:
            return 0
        requests = answers + queued // 2
        if requests < LEAST or self._commit_s >= self._told_s * requests:
            return answers
        return answers // 2 if queued < answers else 0

    def overlaps(self, queued: int) -> bool:
        """Tell whether the next batch had better go before the one under way is answered."""
        return queued >= 2 * LEAST and self._commit_s < self._told_s * queued / 2

    async def tell_first(self, answers: Answers, queued: int, most: int) -> None:
        """Tell those answers for which the next batch had better wait."""
        many = self.first(len(answers), queued, most)
        if many:
            began = boottime()
            answers.tell(many)
            await asyncio.sleep(0)  # they go on, and ask again
            self.told(many, boottime() - began)
