"""What becomes of the ticks that are due: which fire, which were missed, which overlap. Pure.

A tick that can fire at most `grace_s` late, fires. Later ones were missed, and the misfire policy
decides: each fires all the same, one run stands for all of them, or none does. What fires while an
earlier run is not over, the overlap policy lets run, drops, or makes the one that waits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Final, Literal

from engine_pg.schedules.rule import Tick, Timetable

Misfire = Literal["fire_once", "fire_all", "skip"]
Overlap = Literal["allow", "skip", "queue_one"]
Cause = Literal["tick", "misfire", "trigger"]
State = Literal["waiting", "queued", "skipped"]

MOST: Final = 200
"""So many ticks are taken at once: those of a long outage would hold the row, and the node, up."""
MISSED: Final = "missed"
MERGED: Final = "one later run stands for it"
BUSY: Final = "the run before was not over"


@dataclass(frozen=True, slots=True)
class Firing:
    """One run, or one record of what was skipped, for one tick or several missed ones."""

    first: datetime
    due: datetime
    ticks: int = 1
    cause: Cause = "tick"
    state: State = "queued"
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Due:
    """The ticks that may fire now, in order, and the first that may not yet (None: no more)."""

    ticks: Sequence[Tick]
    next: Tick | None

    def more(self, now: datetime) -> bool:
        """Tell whether `MOST` cut off ticks that may fire now as well."""
        return self.next is not None and self.next.fires <= now


@dataclass(frozen=True, slots=True)
class Policy:
    """What a schedule says about missed ticks and about runs beside each other."""

    misfire: Misfire = "fire_once"
    grace_s: float = 60.0
    overlap: Overlap = "skip"


@dataclass(frozen=True, slots=True)
class Open:
    """Whether a run of the schedule is not over, and whether one waits for its end."""

    active: bool = False
    waiting: bool = False


def due(timetable: Timetable, at: datetime, now: datetime, *, most: int = MOST) -> Due:
    """Return the ticks from the one at `at` on that may fire at `now`."""
    found: list[Tick] = []
    tick: Tick | None = timetable.at(at)
    while tick is not None and tick.fires <= now and len(found) < most:
        found.append(tick)
        tick = timetable.after(tick.due)
    return Due(found, tick)


def firings(due: Due, now: datetime, policy: Policy, open_: Open) -> list[Firing]:
    """Return what is to be written for ticks that may fire: each tick is in one of them."""
    return list(_overlapped(_fired(due, now, policy), policy.overlap, open_))


def _fired(due: Due, now: datetime, policy: Policy) -> Iterator[Firing]:
    grace = timedelta(seconds=policy.grace_s)
    missed = list(takewhile(lambda tick: now - tick.fires > grace, due.ticks))
    if policy.misfire == "fire_all":
        yield from (Firing(tick.due, tick.due, cause="misfire") for tick in missed)
    elif missed:
        all_of_them = Firing(missed[0].due, missed[-1].due, len(missed), "misfire")
        if policy.misfire == "skip":
            yield replace(all_of_them, state="skipped", reason=MISSED)
        elif len(missed) == len(due.ticks) and _goes_on(due, now - grace):
            yield replace(all_of_them, state="skipped", reason=MERGED)
        else:
            yield all_of_them
    yield from (Firing(tick.due, tick.due) for tick in due.ticks[len(missed) :])


def _goes_on(due: Due, before: datetime) -> bool:
    return due.next is not None and due.next.fires < before


def _overlapped(fired: Iterator[Firing], overlap: Overlap, open_: Open) -> Iterator[Firing]:
    for firing in fired:
        if firing.state == "skipped":
            yield firing
        else:
            found = admitted(firing, overlap, open_)
            open_ = Open(
                active=open_.active or found.state == "queued",
                waiting=open_.waiting or found.state == "waiting",
            )
            yield found


def admitted(firing: Firing, overlap: Overlap, open_: Open) -> Firing:
    """Return how a firing goes on beside what is open."""
    if overlap == "allow" or not (open_.active or open_.waiting):
        return firing
    if overlap == "queue_one" and not open_.waiting:
        return replace(firing, state="waiting")
    return replace(firing, state="skipped", reason=BUSY)
