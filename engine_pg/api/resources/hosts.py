"""Hosts, and what they measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

from sqlalchemy import select

from engine_pg.api.resources import lookups
from engine_pg.api.resources.actions import action, nothing, reason
from engine_pg.api.resources.resource import Part, Resource
from engine_pg.api.search.inventory import HOSTS as SEARCHABLE
from engine_pg.api.types.host import HOST
from engine_pg.api.types.statistic import statistic
from engine_pg.api.wire.document import Document
from engine_pg.db.tx import Record, Tx
from engine_pg.inventory import tables
from engine_pg.inventory.rows import Cluster, Host


def _documents(base: str, record: Record) -> list[Document]:
    id_, total, free = record["host_id"], record["memory_bytes"], record["memory_free_bytes"]
    owner = ("host", "hosts", id_)
    return [
        statistic(base, owner, "memory.total", "Total memory", "bytes", total),
        statistic(base, owner, "memory.used", "Used memory", "bytes", max(0, total - free)),
        statistic(base, owner, "memory.free", "Free memory", "bytes", free),
        statistic(base, owner, "cpu.current.used", "CPU used", "percent", record["cpu_percent"]),
        statistic(
            base, owner, "cpu.current.idle", "CPU idle", "percent", 100 - record["cpu_percent"]
        ),
        statistic(base, owner, "vm.active", "Active VMs", "none", record["vm_active"]),
    ]


async def statistics_of(tx: Tx, base: str, ids: Sequence[UUID]) -> Mapping[UUID, list[Document]]:
    """Return the statistics of hosts that were seen."""
    host, measured = tables.host, tables.host_statistics
    query = (
        select(measured, host.c.memory_bytes)
        .join_from(measured, host)
        .where(host.c.host_id.in_(list(ids)))
    )
    return {record["host_id"]: _documents(base, record) for record in await tx.all(query)}


HOSTS: Final = Resource(
    kind=Host,
    path="hosts",
    subject="host",
    shape=HOST,
    searchable=SEARCHABLE,
    mandatory=("name", "address", "cluster"),
    add_until="accepted",
    defaults={"port": 54321},
    flags={"activate": True},
    lookups={"cluster_id": lookups.of(Cluster)},
    parts={"statistics": Part("statistics", "statistic", statistics_of)},
)

activate = action(Host, "activate_host", "accepted", nothing)
deactivate = action(Host, "deactivate_host", "final", reason)
