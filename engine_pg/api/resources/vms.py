"""Virtual machines: starting and stopping them, and what is known of their hardware."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

from engine_pg.api.resources import lookups
from engine_pg.api.resources.actions import action, nothing, placement
from engine_pg.api.resources.resource import Part, Resource
from engine_pg.api.search.inventory import VMS as SEARCHABLE
from engine_pg.api.types.statistic import statistic
from engine_pg.api.types.vm import VM
from engine_pg.api.wire.document import Document
from engine_pg.inventory.rows import Cluster, Vm
from engine_pg.replica.view import View


def statistics_of(view: View, base: str, ids: Sequence[UUID]) -> Mapping[UUID, list[Document]]:
    """Return the statistics of VMs."""
    return {
        vm.vm_id: [
            statistic(
                base,
                ("vm", "vms", vm.vm_id),
                "memory.installed",
                "Total memory configured",
                "bytes",
                vm.memory_bytes,
            )
        ]
        for id_ in ids
        if (vm := view.of(Vm).get(id_)) is not None
    }


VMS: Final = Resource(
    kind=Vm,
    path="vms",
    subject="vm",
    shape=VM,
    searchable=SEARCHABLE,
    mandatory=("name", "cluster", "template"),
    defaults={
        "memory_bytes": 1 << 30,
        "cpu_sockets": 1,
        "cpu_cores": 1,
        "cpu_threads": 1,
        "os_type": "other",
        "vm_type": "server",
    },
    lookups={"cluster_id": lookups.of(Cluster, "cluster_id"), "template_id": lookups.of_template},
    parts={"statistics": Part("statistics", "statistic", statistics_of)},
)

start = action(Vm, "start_vm", "accepted", placement)
stop = action(Vm, "stop_vm", "final", nothing)
migrate = action(Vm, "migrate_vm", "accepted", placement)
shutdown = action(Vm, "shutdown_vm", "accepted", nothing)
