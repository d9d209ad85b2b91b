"""Schedules in the replica."""

from __future__ import annotations

from typing import Any, Final, LiteralString

from engine_pg.replica.table import Table
from engine_pg.schedules import store
from engine_pg.schedules.rows import ScheduleRow

ALL: Final[LiteralString] = "select to_jsonb(t) as row from schedule t"

SCHEDULES: Final[tuple[Table[Any], ...]] = (
    Table(
        kind=ScheduleRow,
        topic=store.TOPIC,
        copy=ALL,
        key=lambda record: record["name"],
        place=lambda row: (row.name,),
    ),
)
