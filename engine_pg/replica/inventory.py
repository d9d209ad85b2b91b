"""The inventory's tables in the replica."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Final, LiteralString, TypeVar

from engine_pg.inventory.rows import Cluster, DataCenter, Event, Host, HostStatistics, Vm
from engine_pg.replica.table import Table

N = TypeVar("N", DataCenter, Cluster, Host, Vm)

DATA_CENTERS: Final[LiteralString] = "select to_jsonb(t) as row from data_center t"
CLUSTERS: Final[LiteralString] = "select to_jsonb(t) as row from cluster t"
HOSTS: Final[LiteralString] = "select to_jsonb(t) as row from host t"
STATISTICS: Final[LiteralString] = "select to_jsonb(t) as row from host_statistics t"
VMS: Final[LiteralString] = "select to_jsonb(t) as row from vm t"
# What came last. Who polls from an older one reads it from the database.
EVENTS: Final[LiteralString] = """
select to_jsonb(t) as row from event t order by event_id desc limit 10000
"""
EVENTS_KEPT: Final = 10_000


def _name(row: DataCenter | Cluster | Host | Vm) -> str:
    return row.name.lower()


def _by_name(row: DataCenter | Cluster | Host | Vm) -> tuple[str]:
    return (row.name.lower(),)


def _named(
    kind: type[N], topic: str, copy: LiteralString, **indexes: Callable[[N], Hashable]
) -> Table[N]:
    """Return a table whose rows are found and ordered by name; its key is named after its topic."""
    return Table(
        kind=kind,
        topic=topic,
        copy=copy,
        key=lambda record: record[f"{topic}_id"],
        place=_by_name,
        indexes={"name": _name, **indexes},
    )


INVENTORY: Final[tuple[Table[Any], ...]] = (
    _named(DataCenter, "data_center", DATA_CENTERS),
    _named(Cluster, "cluster", CLUSTERS, data_center_id=lambda row: row.data_center_id),
    _named(
        Host,
        "host",
        HOSTS,
        cluster_id=lambda row: row.cluster_id,
        status=lambda row: row.status,
    ),
    _named(
        Vm,
        "vm",
        VMS,
        cluster_id=lambda row: row.cluster_id,
        host_id=lambda row: row.host_id,
    ),
    Table(
        kind=HostStatistics,
        topic="host_statistics",
        copy=STATISTICS,
        key=lambda record: record["host_id"],
        place=lambda row: (),  # noqa: ARG005  # nobody lists them
    ),
    Table(
        kind=Event,
        topic="event",
        copy=EVENTS,
        key=lambda record: str(record["event_id"]),
        place=lambda row: (-row.event_id,),
        indexes={"host_id": lambda row: row.host_id, "vm_id": lambda row: row.vm_id},
        most=EVENTS_KEPT,
    ),
)
