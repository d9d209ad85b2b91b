"""What people and their tools are shown of schedules: documents for REST and the shell.

Their keys are documented in `docs/reference/rest.md` and stay.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from engine_pg.configuration.definition import ClusterSettings
from engine_pg.schedules.declared import DECLARED, LOOPS
from engine_pg.schedules.rows import RunRow, ScheduleRow

Document = dict[str, Any]

_LEFT_OUT: Final = frozenset({"kind", "action"})


def schedules(rows: Iterable[ScheduleRow], settings: ClusterSettings) -> Document:
    """Return `schedules`, and `loops`: periodic work that is no schedule."""
    loops: list[Document] = []
    for loop in LOOPS:
        every_s = loop.every_s if loop.setting is None else getattr(settings, loop.setting)
        loops.append(asdict(loop) | {"every_s": every_s})
    return {"schedules": [schedule(row) for row in rows], "loops": loops}


def schedule(row: ScheduleRow) -> Document:
    """Return one schedule."""
    found: Document = {
        each.name: _plain(getattr(row, each.name))
        for each in fields(row)
        if each.name not in _LEFT_OUT
    }
    if row.paused:
        found |= {"due_at": None, "fires_at": None}
    own = DECLARED.get(row.name)
    return found | {
        "work": row.action if row.kind == "work" else None,
        "command": row.action if row.kind == "command" else None,
        "default": None if own is None else own.model_dump(mode="json", exclude_defaults=True),
    }


def history(rows: Iterable[RunRow]) -> Document:
    """Return `runs`."""
    return {"runs": [run(row) for row in rows]}


def run(row: RunRow) -> Document:
    """Return one run."""
    return {each.name: _plain(getattr(row, each.name)) for each in fields(row)}


def _plain(value: object) -> object:
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds")
    return value
