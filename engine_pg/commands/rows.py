"""Commands and steps as they are stored, and as everybody else sees them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from engine_pg.db.tx import Record
from engine_pg.ids import new_id

State = Literal["queued", "running", "succeeded", "failed", "unknown", "cancelled", "dead"]
StepKind = Literal["validating", "executing", "finalizing"]
StepState = Literal["started", "finished", "failed", "compensated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What somebody wants done; `command_id` is chosen before the commit, to be looked up by.

    `deadline_s`: seconds until it is halted (None: as its definition says).
    """

    name: str
    subject_id: UUID
    params: dict[str, Any] = field(default_factory=dict[str, Any])
    user_name: str = ""
    correlation_id: str = ""
    command_id: UUID = field(default_factory=new_id)
    deadline_s: float | None = None
    parent_id: UUID | None = None
    retry_of: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepView:
    """One step of a command."""

    number: int
    name: str
    title: str
    kind: StepKind
    state: StepState
    attempt: int
    intent: Record | None
    outcome: Record | None
    error: str | None
    started_at: datetime
    ended_at: datetime | None
    progress: float | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandView:
    """A command and its steps, in order.

    `deaths` counts the runners that ended while they ran it, since it last came a step further;
    `overdue`: its deadline had passed, by the database's clock, when it was looked at.
    """

    command_id: UUID
    name: str
    description: str
    subject_kind: str
    subject_id: UUID
    params: Record
    user_name: str
    correlation_id: str
    state: State
    member_id: UUID | None
    attempt: int
    error_kind: str | None
    error: str | None
    submitted_at: datetime
    started_at: datetime | None
    accepted_at: datetime | None
    ended_at: datetime | None
    deadline_at: datetime | None = None
    cancel_asked_at: datetime | None = None
    cancel_asked_by: str | None = None
    deaths: int = 0
    not_before: datetime | None = None
    parent_id: UUID | None = None
    retry_of: UUID | None = None
    overdue: bool = False
    steps: tuple[StepView, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether it passed validation, so that its caller may be answered."""
        return self.accepted_at is not None

    @property
    def submission(self) -> Submission:
        """Return what was submitted."""
        return Submission(
            name=self.name,
            subject_id=self.subject_id,
            params=self.params,
            user_name=self.user_name,
            correlation_id=self.correlation_id,
            command_id=self.command_id,
        )

    @property
    def final(self) -> bool:
        """Whether nothing more will happen."""
        return self.ended_at is not None
