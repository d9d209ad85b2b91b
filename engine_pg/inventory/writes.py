"""Writes to the inventory: each demands a `FencedTx`; an unfenced one does not type-check."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final
from uuid import UUID

from sqlalchemy import delete, insert, update

from engine_pg.cluster.fence import FencedTx
from engine_pg.errors import NotFound
from engine_pg.inventory import tables
from engine_pg.inventory.reads import key_of, table_of
from engine_pg.inventory.rows import Cluster, DataCenter, Host, Vm

Row = DataCenter | Cluster | Host | Vm

_DATABASE_SETS: Final = frozenset({"version", "created_at"})

EVENT_TURN: Final = "select pg_advisory_xact_lock(7005, 0)"
"""Events get their ids one commit after the other: who polls from the last id misses none."""


async def insert_row(tx: FencedTx, row: Row) -> None:
    """Insert a row; a name that is taken raises `Conflict`."""
    values = {f.name: getattr(row, f.name) for f in fields(row) if f.name not in _DATABASE_SETS}
    await tx.run(insert(table_of(type(row))).values(values))


async def update_row(tx: FencedTx, kind: type[Row], row_id: UUID, values: dict[str, Any]) -> None:
    """Update columns of one row; raises `NotFound`."""
    table = table_of(kind)
    if await tx.run(update(table).where(key_of(kind) == row_id).values(values)) != 1:
        raise NotFound(f"there is no {table.name} {row_id}")


async def delete_row(tx: FencedTx, kind: type[Row], row_id: UUID) -> None:
    """Delete one row; what still refers to it raises `Conflict`."""
    table = table_of(kind)
    if await tx.run(delete(table).where(key_of(kind) == row_id)) != 1:
        raise NotFound(f"there is no {table.name} {row_id}")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """An event to append; names stand beside ids, for things that may be gone later."""

    code: int
    description: str
    severity: str = "normal"
    correlation_id: str = ""
    user_name: str = ""
    command_id: UUID | None = None
    data_center_id: UUID | None = None
    data_center_name: str | None = None
    cluster_id: UUID | None = None
    cluster_name: str | None = None
    host_id: UUID | None = None
    host_name: str | None = None
    vm_id: UUID | None = None
    vm_name: str | None = None


def append_event(tx: FencedTx, event: NewEvent) -> None:
    """Append an event with the transaction's commit."""
    values = {f.name: getattr(event, f.name) for f in fields(event)}
    tx.at_end(EVENT_TURN, {})
    tx.at_end(insert(tables.event).values(values), {})
