"""After a restore to an earlier point: an epoch above all that hosts have seen, no old member.

The hosts are asked what they know. What runs there is then found out by monitoring, as ever; what
runs there and has no row any more is told to people.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, LiteralString
from uuid import UUID

from psycopg.types.json import Jsonb

from engine_pg.cluster.members import end_member
from engine_pg.db.database import Database
from engine_pg.db.tx import Record
from engine_pg.errors import EngineError
from engine_pg.hosts.driver import HostDriver, OpCtx, VmReport
from engine_pg.ids import new_id

Driver = Callable[[str, int], HostDriver]

HOSTS: Final[LiteralString] = "select host_id, name, address, port from host order by name"
VMS: Final[LiteralString] = "select vm_id from vm where vm_id = any(%(ids)s::uuid[])"
RESTORED: Final[LiteralString] = """
select cluster_restored(%(above)s, %(by)s, %(reason)s, %(strangers)s) as said
"""
OLD: Final[LiteralString] = """
select member_id from member where state = 'live' and epoch_id < %(epoch)s
"""
_REASON: Final = "the database was restored to an earlier point"
_AT_ONCE: Final = 50


@dataclass(frozen=True, slots=True)
class Stranger:
    """A VM that runs on a host and has no row."""

    vm_id: UUID
    host_id: UUID
    host_name: str


@dataclass(frozen=True, slots=True)
class Aftermath:
    """What a restore came to."""

    epoch: int
    commands: int
    logins: int
    members: int
    strangers: Sequence[Stranger]
    silent: Sequence[str]


@dataclass(slots=True)
class _Heard:
    token: int = 0
    strangers: list[Stranger] = field(default_factory=list[Stranger])
    silent: list[str] = field(default_factory=list[str])


async def restored(
    db: Database, driver: Driver, *, by: str, reason: str, above: int, timeout_s: float = 10.0
) -> Aftermath:
    """Begin an epoch above `above`, and above all that the hosts have seen; end all older members.

    Those who live by an older epoch are ended after the new one has begun: whoever joins meanwhile
    is of the new one.
    """
    heard = await _ask_all(db, driver, timeout_s)
    async with db.write() as tx:
        strangers = [
            {"vm_id": str(s.vm_id), "host_id": str(s.host_id), "host_name": s.host_name}
            for s in heard.strangers
        ]
        params = {"above": max(above, heard.token >> 40), "by": by, "reason": reason}
        row = await tx.first(RESTORED, params | {"strangers": Jsonb(strangers)})
    assert row is not None
    said = row["said"]
    async with db.read() as tx:
        old = [each["member_id"] for each in await tx.all(OLD, {"epoch": said["epoch"]})]
    for member_id in old:
        await end_member(db, member_id, renewal=None, by=member_id, reason=_REASON)
    return Aftermath(members=len(old), strangers=heard.strangers, silent=heard.silent, **said)


async def _ask_all(db: Database, driver: Driver, timeout_s: float) -> _Heard:
    async with db.read() as tx:
        hosts = await tx.all(HOSTS)
    heard = _Heard()
    room = asyncio.Semaphore(_AT_ONCE)

    async def ask(host: Record) -> None:
        async with room:
            try:
                token, running = await _ask(host, driver, timeout_s)
            except EngineError:
                heard.silent.append(host["name"])
                return
        async with db.read() as tx:
            known = {row["vm_id"] for row in await tx.all(VMS, {"ids": running})}
        heard.token = max(heard.token, token)
        heard.strangers += [
            Stranger(vm_id, host["host_id"], host["name"])
            for vm_id in running
            if vm_id not in known
        ]

    async with asyncio.TaskGroup() as group:
        for host in hosts:
            group.create_task(ask(host))
    return heard


async def _ask(host: Record, driver: Driver, timeout_s: float) -> tuple[int, list[UUID]]:
    ctx = OpCtx(new_id(), timeout_s=timeout_s)
    connection = driver(host["address"], host["port"])
    try:
        identity = await connection.connect(ctx)
        reports = await connection.list_vms(ctx)
    finally:
        await connection.close()
    return identity.highest_token, [report.vm_id for report in reports if _runs(report)]


def _runs(report: VmReport) -> bool:
    return report.state != "down"
