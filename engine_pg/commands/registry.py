"""Every command that the engine knows, by name."""

from __future__ import annotations

from typing import Final

from engine_pg.commands import (
    clusters,
    datacenters,
    hosts,
    maintenance,
    migrate_vm,
    reconcile_vm,
    start_vm,
    stop_vm,
    vms,
)
from engine_pg.commands.definition import Definition

REGISTRY: Final[dict[str, Definition]] = {
    definition.name: definition
    for module in (
        *(datacenters, clusters, hosts, maintenance),
        *(vms, start_vm, stop_vm, migrate_vm, reconcile_vm),
    )
    for definition in module.DEFINITIONS
}
