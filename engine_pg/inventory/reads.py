"""Reading the inventory: rows by id, by name and by condition, in any transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Table, select

from engine_pg.db.tx import Tx
from engine_pg.errors import NotFound
from engine_pg.inventory import tables
from engine_pg.inventory.rows import Cluster, DataCenter, Event, Host, Vm, row_of

R = TypeVar("R", DataCenter, Cluster, Host, Vm, Event)
N = TypeVar("N", DataCenter, Cluster, Host, Vm)

_TABLES: Final[Mapping[type[Any], Table]] = {
    DataCenter: tables.data_center,
    Cluster: tables.cluster,
    Host: tables.host,
    Vm: tables.vm,
    Event: tables.event,
}
_NOUNS: Final[Mapping[type[Any], str]] = {
    DataCenter: "data center",
    Cluster: "cluster",
    Host: "host",
    Vm: "VM",
    Event: "event",
}


def table_of(kind: type[Any]) -> Table:
    """Return the table of a kind of row."""
    return _TABLES[kind]


def noun_of(kind: type[Any]) -> str:
    """Return what people call a kind of row."""
    return _NOUNS[kind]


def key_of(kind: type[Any]) -> ColumnElement[Any]:
    """Return the primary key column of a kind of row."""
    return next(iter(_TABLES[kind].primary_key.columns))


async def get(tx: Tx, kind: type[R], id_: UUID | int) -> R:
    """Return the row with an id, or raise NotFound."""
    record = await tx.first(select(table_of(kind)).where(key_of(kind) == id_))
    if record is None:
        raise NotFound(f"there is no {_NOUNS[kind]} {id_}")
    return row_of(kind, record)


async def listed(
    tx: Tx,
    kind: type[R],
    where: ColumnElement[bool] | None = None,
    *,
    order: Sequence[ColumnElement[Any]] = (),
    limit: int | None = None,
    offset: int = 0,
) -> list[R]:
    """Return the rows that a condition holds for, in order; ties are settled by id."""
    query = select(table_of(kind)).order_by(*order, key_of(kind)).limit(limit).offset(offset)
    if where is not None:
        query = query.where(where)
    return [row_of(kind, record) for record in await tx.all(query)]
