"""The engine's own periodic work: what is a schedule of its own, and what goes on in loops.

The periods are oVirt Engine's, where it does the same. What stays a loop: what others wait for
(numbers of events, looks at hosts), what belongs to whoever leads it, and what the queue itself
rests on. A loop is shown, but can't be changed or paused as a schedule can.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from engine_pg.schedules.definition import Definition

DECLARED: Final[Mapping[str, Definition]] = {
    "trim-events": Definition(
        description="Delete events older than event_retention_days",
        work="trim-events",
        cron="35 35 3 * * *",  # AuditLogCleanup
    ),
    "trim-commands": Definition(
        description="Delete ended commands older than command_retention_days",
        work="trim-commands",
        every_s=600,  # JobRepositoryCleanup
    ),
    "trim-request-keys": Definition(
        description="Forget the keys of requests older than command_retention_days",
        work="trim-request-keys",
        every_s=600,
    ),
    "trim-members": Definition(
        description="Delete ended members older than member_retention_days",
        work="trim-members",
        every_s=600,  # DbEntityCleanup
    ),
    "trim-runs": Definition(
        description="Delete all but the last keep_runs runs of each schedule",
        work="trim-runs",
        every_s=600,
    ),
}
"""What each node writes into a database that does not have it; from then on, people change it."""

WORKS: Final = tuple(dict.fromkeys(each.work for each in DECLARED.values() if each.work))


@dataclass(frozen=True, slots=True)
class Loop:
    """Periodic work that is no schedule; `setting` names what its period is set by."""

    name: str
    every_s: float
    where: str
    description: str
    setting: str | None = None


LOOPS: Final = (
    Loop(
        "monitor",
        3.0,
        "leader of each partition",
        "Look at each host, and at its VMs",
        "monitor_period_s",
    ),
    Loop("adoption", 1.0, "leader", "Find commands without a job, and defer them anew"),
    Loop("lock-watch", 10.0, "leader", "Look how full PostgreSQL's table of locks is"),
    Loop("formation-watch", 1.0, "leader", "Look at the formation that PostgreSQL runs on"),
    Loop("retention", 20.0, "leader", "Trim the change feed behind its readers"),
    Loop("event-numbers", 2.0, "each node", "Give numbers to events that nobody has rung for"),
    Loop("schedules", 10.0, "each node", "Look for schedules that nobody has rung for"),
    Loop("works", 5.0, "each node", "Look for works that nobody has rung for"),
)
