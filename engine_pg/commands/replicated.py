"""Commands and their steps in the replica: the last ones, as jobs are asked for.

Does not promise that an old command is there: it is then to be looked up in the database.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final, LiteralString
from uuid import UUID

from engine_pg.commands.rows import CommandView, StepView
from engine_pg.db.tx import Record
from engine_pg.replica.table import Table
from engine_pg.replica.view import View

LAST: Final[LiteralString] = """
select to_jsonb(t) as row from command t order by submitted_at desc limit 2000
"""
LAST_STEPS: Final[LiteralString] = """
select to_jsonb(s) as row from command_step s
 where command_id in (select command_id from command order by submitted_at desc limit 2000)
"""
_COMMANDS: Final = 2000
_STEPS: Final = 20_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRow(StepView):
    """A step, and whose it is."""

    command_id: UUID


def _newest(at: datetime) -> int:
    return (_EPOCH - at) // timedelta(microseconds=1)


def _step_key(record: Record) -> str:
    return f'["{record["command_id"]}", {record["number"]}]'  # as the feed writes several columns


COMMANDS: Final[tuple[Table[Any], ...]] = (
    Table(
        kind=CommandView,
        topic="command",
        copy=LAST,
        key=lambda record: record["command_id"],
        place=lambda row: (_newest(row.submitted_at),),
        indexes={"correlation_id": lambda row: row.correlation_id or None},
        most=_COMMANDS,
    ),
    Table(
        kind=StepRow,
        topic="command_step",
        copy=LAST_STEPS,
        key=_step_key,
        place=lambda row: (_newest(row.started_at),),
        indexes={"command_id": lambda row: row.command_id},
        most=_STEPS,
    ),
)


def with_steps(view: View, command: CommandView) -> CommandView:
    """Return a command with its steps."""
    steps = view.of(StepRow).by("command_id", command.command_id)
    return replace(command, steps=tuple(sorted(steps, key=lambda step: step.number)))


def open_commands(view: View) -> Counter[UUID]:
    """Return how many of the last commands each member runs."""
    rows = view.of(CommandView)
    return Counter(row.member_id for row in rows if row.member_id is not None and not row.final)


def listed(
    view: View, *, correlation_id: str | None = None, limit: int = 100, offset: int = 0
) -> list[CommandView]:
    """Return commands, the newest first, with their steps."""
    rows = view.of(CommandView)
    found = rows if correlation_id is None else rows.by("correlation_id", correlation_id)
    if correlation_id is not None:
        found = sorted(found, key=lambda row: (_newest(row.submitted_at), str(row.command_id)))
    return [with_steps(view, each) for each in islice(found, offset, offset + limit)]
