"""What people are told of a formation: the events that follow from two looks at it.

What a planned switchover brings about alarms nobody: a writer of proofs goes on all through one, so
its row tells that one is under way. When the standby stays away after it, the alarm is raised then.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC
from typing import Final, LiteralString

from engine_pg.formation.commits import Hang
from engine_pg.formation.kept import FormationRow
from engine_pg.formation.state import FormationState
from engine_pg.inventory.writes import NewEvent

PRIMARY_CHANGED: Final = 9111
UNPROTECTED: Final = 9112
PROTECTED: Final = 9113
MONITOR_AWAY: Final = 9114
MONITOR_BACK: Final = 9115
COMMITS_HUNG: Final = 9116

TOLD: Final[LiteralString] = """
select 1 as told from (select code, at from event where code = 9116
                       union all select code, at from event_inbox where code = 9116) as e
 where at > %(since)s limit 1
"""
LAST_WORD: Final[LiteralString] = """
select code, severity from (select code, severity, at from event where code in (9112, 9113)
   union all select code, severity, at from event_inbox where code in (9112, 9113)) as e
 order by at desc limit 1
"""
"""On whether commits are on two servers."""
_ALONE: Final = (
    "what is committed now is on one server alone. Look why the standby is away (engine-pg"
    " formation show)."
)


def changes(
    before: FormationRow, state: FormationState, *, planned: bool = False, unalarmed: bool = False
) -> Iterator[NewEvent]:
    """Yield the events that tell what changed.

    `planned`: a switchover is under way, or just over; `unalarmed`: that the standby is away was
    told as part of one.
    """
    primary = state.primary
    if primary and before.primary_node and primary.name != before.primary_node:
        yield NewEvent(
            code=PRIMARY_CHANGED,
            severity="normal" if planned else "warning",
            description=(
                f"PostgreSQL's primary is {primary.name} now, on timeline {primary.timeline};"
                f" it was {before.primary_node}{', until a planned switchover' if planned else ''}."
            ),
        )
    if not state.synchronous and (before.synchronous or (unalarmed and not planned)):
        yield _unprotected(planned=planned, switched=not before.synchronous)
    if state.synchronous and not before.synchronous:
        text = "PostgreSQL has a synchronous standby again: commits are on two servers."
        yield NewEvent(code=PROTECTED, description=text)
    yield from _of_monitor(before.monitor, state.monitor)


def _unprotected(*, planned: bool, switched: bool) -> NewEvent:
    if planned:
        text = (
            "PostgreSQL's standby is away for a planned switchover: until the old primary follows,"
            " what is committed is on one server alone."
        )
        return NewEvent(code=UNPROTECTED, severity="normal", description=text)
    what = (
        "A planned switchover is over, and PostgreSQL has no"
        if switched
        else "PostgreSQL has lost its"
    )
    return NewEvent(
        code=UNPROTECTED, severity="alert", description=f"{what} synchronous standby: {_ALONE}"
    )


def was_unalarmed(last: dict[str, object] | None) -> bool:
    """Say whether the last word was that the standby is away, and nobody was alarmed by it."""
    return last is not None and (last["code"], last["severity"]) == (UNPROTECTED, "normal")


def _of_monitor(before: str, now: str) -> Iterator[NewEvent]:
    if now == "away" and before != "away":
        yield NewEvent(
            code=MONITOR_AWAY,
            severity="alert",
            description=(
                "The monitor of PostgreSQL's formation does not answer: writes go on, and nothing"
                " fails over until it is back."
            ),
        )
    if now == "up" and before == "away":
        text = "The monitor of PostgreSQL's formation answers again."
        yield NewEvent(code=MONITOR_BACK, description=text)


def hung(hang: Hang) -> NewEvent:
    """Return the event that tells of commits that hung; it could not be committed before."""
    return NewEvent(
        code=COMMITS_HUNG,
        severity="alert",
        description=(
            f"Commits hung for {hang.waited_s:.0f} s, since"
            f" {hang.since.astimezone(UTC):%H:%M:%S} UTC: {hang.why}."
        ),
    )
