"""What monitoring writes: what a host and its VMs were seen to be, never what a command works on.

A row that a lock protects is left alone, and so is one that changed since it was read: a report
that is older than a command's write can't overwrite it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, LiteralString
from uuid import UUID

from engine_pg.cluster.fence import FencedTx
from engine_pg.db.tx import Tx
from engine_pg.inventory.rows import Host, Vm, row_of

MONITORED: Final = ("up", "connecting", "non_responsive", "non_operational")

HOSTS: Final[LiteralString] = """
select h.*, exists (select from lock_grant g
                     where g.kind = 'host' and g.id = h.host_id::text and g.mode = 'exclusive') as
                     busy from host h where h.status = any(%(statuses)s)
   and (%(host_id)s::uuid is null or h.host_id = %(host_id)s)
"""
STRAYS: Final[LiteralString] = """
select v.* from vm v
 where v.vm_id = any(%(ids)s::uuid[]) and v.host_id is distinct from %(host_id)s
   and not lock_is_granted('vm', v.vm_id::text, 'exclusive')
   and not exists (select from command c where c.subject_id = v.vm_id and c.ended_at is null)
"""
VMS: Final[LiteralString] = """
select v.*, lock_is_granted('vm', v.vm_id::text, 'exclusive')
            or exists (select from command c
                        where c.subject_id = v.vm_id and c.ended_at is null) as busy
  from vm v where v.host_id = %(host_id)s
"""
SEEN: Final[LiteralString] = """
insert into host_statistics (host_id, cpu_percent, memory_free_bytes, vm_active, vm_count, seen_at)
select host_id, %(cpu_percent)s, %(memory_free_bytes)s, %(vm_active)s, %(vm_count)s, now()
  from host where host_id = %(host_id)s
on conflict (host_id) do update
   set cpu_percent = excluded.cpu_percent, memory_free_bytes = excluded.memory_free_bytes,
       vm_active = excluded.vm_active, vm_count = excluded.vm_count, failures = 0,
       seen_at = excluded.seen_at
"""
MISSED: Final[LiteralString] = """
insert into host_statistics (host_id, failures, seen_at)
select host_id, 1, now() from host where host_id = %(host_id)s
on conflict (host_id) do update
   set failures = case when %(first)s then 1 else host_statistics.failures + 1 end,
       seen_at = case when %(first)s then now() else host_statistics.seen_at end
returning failures, extract(epoch from now() - seen_at)::float8 as silent_s
"""
HOST_STATUS: Final[LiteralString] = """
update host set status = %(status)s, status_detail = %(detail)s
 where host_id = %(host_id)s and version = %(version)s
   and not exists (select from lock_grant
                    where kind = 'host' and id = %(host_id)s::text and mode = 'exclusive')
"""
VM_STATUS: Final[LiteralString] = """
update vm set status = %(status)s
 where vm_id = %(vm_id)s and version = %(version)s
   and not lock_is_granted('vm', %(vm_id)s::text, 'exclusive')
"""
VMS_UNKNOWN: Final[LiteralString] = """
update vm set status = 'unknown'
 where host_id = %(host_id)s and status <> 'unknown'
   and not lock_is_granted('vm', vm.vm_id::text, 'exclusive')
"""


@dataclass(frozen=True, slots=True)
class Watched:
    """A row and whether a command works on it right now."""

    host: Host
    busy: bool


async def monitored_hosts(tx: Tx, host_id: UUID | None = None) -> list[Watched]:
    """Return the hosts that are to be looked at, or the one of them with an id."""
    records = await tx.all(HOSTS, {"statuses": list(MONITORED), "host_id": host_id})
    return [Watched(row_of(Host, record), record["busy"]) for record in records]


async def vms_of(tx: Tx, host_id: UUID) -> list[tuple[Vm, bool]]:
    """Return the VMs that are on a host by our books, and whether a command works on each."""
    records = await tx.all(VMS, {"host_id": host_id})
    return [(row_of(Vm, record), record["busy"]) for record in records]


async def strays(tx: Tx, host_id: UUID, running: Collection[UUID]) -> list[Vm]:
    """Return which of the VMs that run on a host are elsewhere, or nowhere, by our books."""
    return [
        row_of(Vm, record)
        for record in await tx.all(STRAYS, {"host_id": host_id, "ids": list(running)})
    ]


async def seen(tx: FencedTx, host_id: UUID, statistics: Mapping[str, float | int]) -> None:
    """Write what a host told about itself."""
    await tx.run(SEEN, {"host_id": host_id, **statistics})


async def missed(tx: FencedTx, host_id: UUID, *, first: bool) -> tuple[int, float]:
    """Count a failed look; return how many in a row, and the seconds since the last good one.

    `first`: nobody looked before this watch began, so that the host's silence counts from now.
    """
    record = await tx.first(MISSED, {"host_id": host_id, "first": first})
    return (0, 0.0) if record is None else (record["failures"], record["silent_s"])


async def set_host_status(tx: FencedTx, host: Host, status: str, detail: str = "") -> bool:
    """Change a host's status, unless it changed since it was read or a command works on it."""
    params = {"host_id": host.host_id, "version": host.version, "status": status, "detail": detail}
    return await tx.run(HOST_STATUS, params) == 1


async def set_vm_status(tx: FencedTx, vm: Vm, status: str) -> bool:
    """Change a VM's status, unless it changed since it was read or a command works on it."""
    params = {"vm_id": vm.vm_id, "version": vm.version, "status": status}
    return await tx.run(VM_STATUS, params) == 1


async def set_vms_unknown(tx: FencedTx, host_id: UUID) -> int:
    """Say that nobody knows what the VMs of a silent host do."""
    return await tx.run(VMS_UNKNOWN, {"host_id": host_id})
