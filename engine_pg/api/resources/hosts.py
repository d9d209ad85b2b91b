"""Hosts, and what they measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

from engine_pg.api.resources import lookups
from engine_pg.api.resources.actions import action, nothing, reason
from engine_pg.api.resources.resource import Part, Resource
from engine_pg.api.search.inventory import HOSTS as SEARCHABLE
from engine_pg.api.types.host import HOST
from engine_pg.api.types.statistic import statistic
from engine_pg.api.wire.document import Document
from engine_pg.inventory.rows import Cluster, Host, HostStatistics
from engine_pg.replica.view import View


def _documents(base: str, host: Host, measured: HostStatistics) -> list[Document]:
    id_, total, free = host.host_id, host.memory_bytes, measured.memory_free_bytes
    owner = ("host", "hosts", id_)
    return [
        statistic(base, owner, "memory.total", "Total memory", "bytes", total),
        statistic(base, owner, "memory.used", "Used memory", "bytes", max(0, total - free)),
        statistic(base, owner, "memory.free", "Free memory", "bytes", free),
        statistic(base, owner, "cpu.current.used", "CPU used", "percent", measured.cpu_percent),
        statistic(
            base, owner, "cpu.current.idle", "CPU idle", "percent", 100 - measured.cpu_percent
        ),
        statistic(base, owner, "vm.active", "Active VMs", "none", measured.vm_active),
    ]


def statistics_of(view: View, base: str, ids: Sequence[UUID]) -> Mapping[UUID, list[Document]]:
    """Return the statistics of hosts that were seen."""
    hosts, statistics = view.of(Host), view.of(HostStatistics)
    return {
        id_: _documents(base, host, measured)
        for id_ in ids
        if (host := hosts.get(id_)) is not None and (measured := statistics.get(id_)) is not None
    }


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
    lookups={"cluster_id": lookups.of(Cluster, "cluster_id")},
    parts={"statistics": Part("statistics", "statistic", statistics_of)},
)

activate = action(Host, "activate_host", "accepted", nothing)
deactivate = action(Host, "deactivate_host", "final", reason)
