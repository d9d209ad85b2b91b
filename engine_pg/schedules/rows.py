"""Schedules and their runs as they are stored."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from engine_pg.db.tx import Record
from engine_pg.schedules.definition import FIELDS, Definition, defined
from engine_pg.schedules.planning import Cause, Misfire, Overlap
from engine_pg.schedules.rule import Timetable

RunState = Literal[
    "waiting", "queued", "running", "succeeded", "failed", "unknown", "cancelled", "dead", "skipped"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRow:
    """A schedule and where it stands: its next tick, and what it has done."""

    name: str
    description: str
    kind: Literal["work", "command"]
    action: str
    subject_id: UUID | None
    params: Record
    cron: str | None
    every_s: float | None
    zone: str
    anchor_at: datetime
    starts_at: datetime | None
    ends_at: datetime | None
    jitter_s: float
    misfire: Misfire
    grace_s: float
    overlap: Overlap
    keep_runs: int
    paused: bool
    declared: bool
    version: int
    changed_at: datetime
    changed_by: str
    due_at: datetime | None
    fires_at: datetime | None
    last_due_at: datetime | None
    last_fired_at: datetime | None
    fired: int
    skipped: int
    problem: str

    @property
    def values(self) -> dict[str, Any]:
        """What people have defined, whether it keeps to the rules or not."""
        own = {name: getattr(self, name) for name in FIELDS if name not in ("work", "command")}
        return own | {self.kind: self.action}

    @property
    def definition(self) -> Definition:
        """What people have defined; raises `Invalid` for what was written past the rules."""
        return defined(self.values)

    @property
    def timetable(self) -> Timetable:
        """All its ticks; raises `Invalid`."""
        return self.definition.timetable(self.name, self.anchor_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """One run of a schedule, or the record of ticks that were skipped."""

    run_id: UUID
    schedule: str
    cause: Cause
    first_due_at: datetime
    due_at: datetime
    ticks: int
    state: RunState
    reason: str
    fired_at: datetime
    fired_by: str
    command_id: UUID | None
    node: str | None
    attempt: int
    started_at: datetime | None
    ended_at: datetime | None
    outcome: str


_SCHEDULE: tuple[str, ...] = tuple(field.name for field in fields(ScheduleRow))
_RUN: tuple[str, ...] = tuple(field.name for field in fields(RunRow))


def schedule_of(record: Record) -> ScheduleRow:
    """Return a schedule out of its row."""
    return ScheduleRow(**{name: record[name] for name in _SCHEDULE})


def run_of(record: Record) -> RunRow:
    """Return a run out of its row."""
    return RunRow(**{name: record[name] for name in _RUN})
