"""Placement: the hosts of a cluster that have room for a VM, the emptiest first.

A VM's row names its host from the moment it is placed, so that what others were promised counts;
one that migrates counts on both hosts, there by what its command has placed.
Two placements in one cluster are told apart by its row: `reserve` holds it until the commit.
"""

from __future__ import annotations

from typing import Final, LiteralString
from uuid import UUID

from engine_pg.cluster.fence import FencedTx
from engine_pg.db.tx import Tx
from engine_pg.errors import Conflict
from engine_pg.inventory.rows import Vm

CANDIDATES: Final[LiteralString] = """
with coming as (
  select (s.outcome->>'host_id')::uuid as host_id, v.vm_id, v.memory_bytes
    from command c
    join command_step s on s.command_id = c.command_id and s.name = 'place' and s.state = 'finished'
    join vm v on v.vm_id = c.subject_id
   where c.ended_at is null and c.name = 'migrate_vm'),
placed as (
  select host_id, vm_id, memory_bytes from vm where host_id is not null
  union select host_id, vm_id, memory_bytes from coming)
select h.host_id, h.memory_bytes - coalesce(sum(v.memory_bytes), 0) as free_bytes
  from host h left join placed v on v.host_id = h.host_id and v.vm_id <> %(vm_id)s
 where h.cluster_id = %(cluster_id)s and h.status = 'up'
   and (%(host_id)s::uuid is null or h.host_id = %(host_id)s)
 group by h.host_id
having h.memory_bytes - coalesce(sum(v.memory_bytes), 0) >= %(memory_bytes)s
 order by free_bytes desc, h.host_id
"""
TURN: Final[LiteralString] = "select from cluster where cluster_id = %(cluster_id)s for update"


async def candidates(tx: Tx, vm: Vm, pinned: UUID | None = None) -> list[UUID]:
    """Return the hosts that could run the VM, the best first; only `pinned` if it is given."""
    params = {
        "vm_id": vm.vm_id,
        "cluster_id": vm.cluster_id,
        "host_id": pinned,
        "memory_bytes": vm.memory_bytes,
    }
    return [record["host_id"] for record in await tx.all(CANDIDATES, params)]


async def closed(tx: FencedTx, cluster_id: UUID) -> None:
    """Have all placements in a cluster see what is written next, until the commit."""
    await tx.run(TURN, {"cluster_id": cluster_id})


async def reserve(tx: FencedTx, vm: Vm, host_id: UUID) -> None:
    """Make sure that the host still has room, alone in the cluster until the commit."""
    await tx.run(TURN, {"cluster_id": vm.cluster_id})
    if host_id not in await candidates(tx, vm, host_id):
        raise Conflict(f"the host for VM {vm.name} has no room any more")
