"""What a node counts and times about its coordination: cheap enough for every lock.

Numbers and nothing else: no labels but a lock's kind, no format, no clock, nobody who reads. One
object outlives the members of its node, so that its counts only rise. A call costs some hundred
nanoseconds; it is made on the event loop's thread and never waits.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Bounds for what should be over soon."""
LONG_SECONDS: Final = (0.001, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
"""Bounds for what people or hosts may hold up."""
SIZES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)

OTHER: Final = "other"
MOST_KINDS: Final = 64
"""So many kinds of locks are told apart; those that come later are `other`."""


class Distribution:
    """How often values fell into each of some fixed ranges, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds: Final = tuple(bounds)
        self.counts: Final = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count one value; one that equals a bound is below it."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)


class ByKind:
    """A distribution for each kind of lock, of which there are few."""

    __slots__ = ("_bounds", "kinds")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds: Final = bounds
        self.kinds: Final[dict[str, Distribution]] = {}

    def add(self, kind: str, value: float) -> None:
        """Count one value of a kind."""
        known = self.kinds.get(kind)
        if known is None:
            name = kind if len(self.kinds) < MOST_KINDS else OTHER
            known = self.kinds.setdefault(name, Distribution(self._bounds))
        known.counts[bisect_left(known.bounds, value)] += 1  # as `known.add`, a call less
        known.total += value


@dataclass(slots=True)
class Measures:
    """Everything that one node counts about its coordination, from its start on."""

    batch_sizes: Distribution = field(default_factory=lambda: Distribution(SIZES))
    batch_s: Distribution = field(default_factory=lambda: Distribution(SECONDS))
    renewal_s: Distribution = field(default_factory=lambda: Distribution(SECONDS))
    pause_s: Distribution = field(default_factory=lambda: Distribution(LONG_SECONDS))
    wait_s: ByKind = field(
        default_factory=lambda: ByKind(LONG_SECONDS)
    )  # of requests, until granted
    hold_s: ByKind = field(
        default_factory=lambda: ByKind(LONG_SECONDS)
    )  # of grants, until released
    refusals: dict[str, int] = field(default_factory=dict[str, int])
    resumes: int = 0
    endings: dict[str, int] = field(default_factory=dict[str, int])
    deafnesses: int = 0

    def batch(self, size: int, seconds: float) -> None:
        """Note a batch that was answered: its operations, and its time on the wire."""
        self.batch_sizes.add(size)
        self.batch_s.add(seconds)

    def renewal(self, seconds: float) -> None:
        """Note an acknowledged renewal: the latency of the heartbeat."""
        self.renewal_s.add(seconds)

    def refused(self, kind: str) -> None:
        """Note a request that was refused; `kind` is of its first key."""
        refusals = self.refusals
        if kind not in refusals and len(refusals) >= MOST_KINDS:
            kind = OTHER
        refusals[kind] = refusals.get(kind, 0) + 1

    def paused(self, seconds: float) -> None:
        """Note a pause that is over: how long the member was past `trusted_until`."""
        self.pause_s.add(seconds)

    def resumed(self) -> None:
        """Note that the lock session was resumed."""
        self.resumes += 1

    def deafened(self) -> None:
        """Note a probe of the doorbell that did not come back."""
        self.deafnesses += 1

    def ended(self, how: str) -> None:
        """Note the ending of a member: `other` (we buried one), `own` (we were ended), `left`."""
        self.endings[how] = self.endings.get(how, 0) + 1


@dataclass(frozen=True, slots=True)
class Standing:
    """How the node's present member stands at this instant."""

    trusted_s: float
    locks_held: int
    locks_limit: int
    waiting: int = 0
