"""What people write about a schedule: typed, bounded, and refused in words when it is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Self
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from engine_pg.errors import Invalid
from engine_pg.schedules.planning import Misfire, Overlap, Policy
from engine_pg.schedules.rule import Cron, Every, Timetable, zone_of

_SHOWN: Final = 60
_YEAR_S: Final = 366 * 86400.0


class Definition(BaseModel):
    """A schedule as people define it; immutable."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    description: str = Field(default="", max_length=1000, description="What it is for")
    work: str | None = Field(default=None, description="The engine's own work that it runs")
    command: str | None = Field(default=None, description="The command that it submits")
    subject_id: UUID | None = Field(
        default=None, description="What the command is about; without one, something new each time"
    )
    params: dict[str, Any] = Field(default_factory=dict, description="The command's parameters")
    cron: str | None = Field(
        default=None, max_length=200, description="When: five fields, or six with seconds first"
    )
    every_s: float | None = Field(
        default=None, ge=1, le=_YEAR_S, description="When: each so many seconds"
    )
    zone: str = Field(default="UTC", description="The IANA time zone that cron goes by")
    starts_at: AwareDatetime | None = Field(default=None, description="No tick before this moment")
    ends_at: AwareDatetime | None = Field(default=None, description="No tick from this moment on")
    jitter_s: float = Field(
        default=0.0, ge=0, le=86400, description="Each tick fires up to so much later than due"
    )
    misfire: Misfire = Field(default="fire_once", description="What becomes of missed ticks")
    grace_s: float = Field(
        default=60.0, ge=0, le=_YEAR_S, description="A tick that fires later than this was missed"
    )
    overlap: Overlap = Field(
        default="skip", description="What becomes of a tick while the run before is not over"
    )
    keep_runs: int = Field(default=100, ge=1, le=100_000, description="Past runs that are kept")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.work is None) == (self.command is None):
            raise ValueError("either work or command should be given")
        if (self.cron is None) == (self.every_s is None):
            raise ValueError("either cron or every_s should be given")
        if self.work is not None and (self.subject_id is not None or self.params):
            raise ValueError("subject_id and params are a command's; a work has none")
        if self.starts_at and self.ends_at and self.ends_at <= self.starts_at:
            raise ValueError("ends_at should be after starts_at")
        if self.every_s is not None and self.jitter_s >= self.every_s:
            raise ValueError("jitter_s should be less than every_s")
        try:
            zone_of(self.zone)
            if self.cron is not None:
                Cron(self.cron, self.zone)
        except Invalid as problem:
            raise ValueError(str(problem)) from problem
        return self

    @property
    def policy(self) -> Policy:
        """What it says about missed ticks and about overlap."""
        return Policy(self.misfire, self.grace_s, self.overlap)

    def timetable(self, name: str, anchor: datetime) -> Timetable:
        """Return its ticks."""
        rule = Cron(self.cron, self.zone) if self.cron else Every(self.every_s or 1.0, anchor)
        return Timetable(
            name=name,
            rule=rule,
            jitter_s=self.jitter_s,
            starts=self.starts_at,
            ends=self.ends_at,
        )


FIELDS: Final = tuple(Definition.model_fields)


def defined(values: Mapping[str, object]) -> Definition:
    """Return a definition; raises `Invalid`."""
    try:
        return Definition.model_validate(values)
    except ValidationError as problem:
        raise Invalid("; ".join(_sentences(problem))) from problem


def changed(before: Mapping[str, object], values: Mapping[str, object]) -> Definition:
    """Return what was defined with values laid over it; who gives `cron` takes `every_s` away."""
    kept = dict(before)
    for one, other in (("cron", "every_s"), ("work", "command")):
        for given, taken in ((one, other), (other, one)):
            if values.get(given) is not None:
                kept.pop(taken, None)
    if values.get("work") is not None:
        kept = {key: value for key, value in kept.items() if key not in ("subject_id", "params")}
    return defined({**kept, **values})


def _sentences(problem: ValidationError) -> list[str]:
    found: list[str] = []
    for error in problem.errors(include_url=False, include_context=False):
        said = str(error["msg"]).removeprefix("Value error, ")
        if not error["loc"]:
            found.append(said)
        elif error["type"] == "extra_forbidden":
            found.append(f"a schedule has no {str(error['loc'][0])[:_SHOWN]}")
        else:
            given = str(error["input"])[:_SHOWN]
            found.append(f"{error['loc'][0]} {said.removeprefix('Input ')}, not {given}")
    return found
