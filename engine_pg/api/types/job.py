"""Jobs and steps on the wire: a command as oVirt's clients know it."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from engine_pg.api.wire.document import Document, reference
from engine_pg.commands.rows import CommandView, StepView
from engine_pg.ids import derived_id

_JOB_STATUS: Final = {
    "queued": "started",
    "running": "started",
    "succeeded": "finished",
    "failed": "failed",
    "unknown": "unknown",
    "cancelled": "aborted",
    "dead": "failed",
}
_STEP_STATUS: Final = {
    "started": "started",
    "finished": "finished",
    "failed": "failed",
    "compensated": "aborted",
}
PATH: Final = "jobs"


def job(view: CommandView, base: str, owner_id: UUID | None) -> Document:
    """Return a command as a job."""
    href = f"{base}/{PATH}/{view.command_id}"
    moments = [view.submitted_at, view.started_at, view.ended_at]
    moments += [at for step in view.steps for at in (step.started_at, step.ended_at)]
    return {
        "id": str(view.command_id),
        "href": href,
        "description": view.description if not view.error else f"{view.description}: {view.error}",
        "status": _JOB_STATUS[view.state],
        "external": False,
        "auto_cleared": True,
        "start_time": view.started_at or view.submitted_at,
        "last_updated": max(at for at in moments if at is not None),
        "end_time": view.ended_at,
        "correlation_id": view.correlation_id,
        "owner": reference(base, "users", owner_id) if owner_id else None,
        "link": [{"rel": "steps", "href": f"{href}/steps"}],
    }


def _percent(one: StepView) -> int | None:
    if one.state == "finished":
        return 100
    return None if one.progress is None else round(100 * one.progress)


def step(view: CommandView, one: StepView, base: str) -> Document:
    """Return a step of a command."""
    own = reference(base, PATH, view.command_id)
    id_ = derived_id(view.command_id, "step", one.number)
    return {
        "id": str(id_),
        "href": f"{own['href']}/steps/{id_}",
        "description": f"{one.title}: {one.message}" if one.message else one.title,
        "type": one.kind,
        "number": one.number,
        "status": _STEP_STATUS[one.state],
        "progress": _percent(one),
        "external": False,
        "start_time": one.started_at,
        "end_time": one.ended_at,
        "job": own,
    }
