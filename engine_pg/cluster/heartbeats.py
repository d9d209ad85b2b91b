"""When the next heartbeat goes: at an instant of the database's clock that several members share.

A backend that wakes for a single statement finds nothing of it in the processor's caches, and its
commit waits for a flush of its own. Of several that wake together only the first does, and one
flush is all theirs.

Does not promise: anything that rests on that clock. It chooses the instant; the next heartbeat
comes a period after the last one at the latest, whatever it says.
"""

from __future__ import annotations

import math
from typing import Final

_NEAR: Final = 0.02
"""So early, in parts of a period, is meant for this instant: a timer woke a moment too soon."""


class Heartbeats:
    """The heartbeats of one member, `period_s` apart; `phase`, from 0 to 1, tells with whom.

    Members have as many instants in a period as keep any two of them `look_s` apart at most: each
    heartbeat is a look at the others as well.
    """

    def __init__(self, period_s: float, *, look_s: float, phase: float) -> None:
        instants = math.ceil(period_s / look_s)
        self._mine = math.floor(phase * instants) / instants
        self._phase = phase
        self.period_s = period_s

    @property
    def first_s(self) -> float:
        """In how many seconds the first one goes: of many that came at once not all are to meet."""
        return self.period_s * self._phase

    def next_s(self, at_s: float | None) -> float:
        """Return in how many seconds the next one goes after one that the database carried out.

        `at_s`: when that was, in seconds by its clock; None: it did not tell.
        """
        if at_s is None:
            return self.period_s
        left = 1.0 - (at_s / self.period_s - self._mine) % 1.0
        return self.period_s * (left if left > _NEAR else 1.0)
