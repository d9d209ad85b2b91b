"""Writes to the inventory: each demands a `FencedTx`; an unfenced one does not type-check."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Table, delete, insert, update

from engine_pg.cluster.fence import FencedTx
from engine_pg.db.faults import Duplicate
from engine_pg.errors import Conflict, NotFound
from engine_pg.inventory import tables
from engine_pg.inventory.numbering import EVENTS
from engine_pg.inventory.reads import key_of, table_of
from engine_pg.inventory.rows import Cluster, DataCenter, Host, Vm

Row = DataCenter | Cluster | Host | Vm

_DATABASE_SETS: Final = frozenset({"version", "created_at"})


async def insert_row(tx: FencedTx, row: Row) -> None:
    """Insert a row; a name that is taken raises `Conflict`."""
    values = {f.name: getattr(row, f.name) for f in fields(row) if f.name not in _DATABASE_SETS}
    with _telling(table_of(type(row))):
        await tx.run(insert(table_of(type(row))).values(values))


async def update_row(tx: FencedTx, kind: type[Row], row_id: UUID, values: dict[str, Any]) -> None:
    """Update columns of one row, `attrs` key by key; raises `NotFound`."""
    table = table_of(kind)
    if "attrs" in values:
        values = values | {"attrs": table.c.attrs.concat(values["attrs"])}
    with _telling(table):
        touched = await tx.run(update(table).where(key_of(kind) == row_id).values(values))
    if touched != 1:
        raise NotFound(f"there is no {table.name} {row_id}")


async def delete_row(tx: FencedTx, kind: type[Row], row_id: UUID) -> None:
    """Delete one row; what still refers to it raises `Conflict`."""
    table = table_of(kind)
    if await tx.run(delete(table).where(key_of(kind) == row_id)) != 1:
        raise NotFound(f"there is no {table.name} {row_id}")


@contextmanager
def _telling(table: Table) -> Generator[None]:
    """Say in words which unique key is taken."""
    try:
        yield
    except Duplicate as duplicate:
        thing = table.name.replace("_", " ").replace("vm", "VM")
        what = "address and port" if "address" in duplicate.constraint else "name"
        raise Conflict(f"there is another {thing} with this {what}") from duplicate


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


def told(event: NewEvent) -> dict[str, Any]:
    """Return an event as JSON can say it."""
    values = {f.name: getattr(event, f.name) for f in fields(event)}
    return {
        name: str(value) if isinstance(value, UUID) else value for name, value in values.items()
    }


async def append_event(tx: FencedTx, event: NewEvent) -> None:
    """Append an event with the transaction's commit; it gets its number afterwards."""
    values = {f.name: getattr(event, f.name) for f in fields(event)}
    await tx.run(insert(tables.event_inbox).values(values))
    tx.rings.add(EVENTS)
