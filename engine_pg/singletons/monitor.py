"""Host monitoring, split into partitions: each a leadership, each watching its share of the hosts.

A host is looked at when it rings (an event) and on a period; what it tells goes into the inventory
under the partition's term. Where it contradicts the books about a VM, a command is submitted that
asks again under the VM's lock.

Does not promise: that a silent host is dead. It only says how long it has been silent.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import asdict
from typing import Final
from uuid import UUID

from engine_pg.clock import boottime
from engine_pg.cluster.fence import Fencing
from engine_pg.cluster.leaders import Leadership
from engine_pg.commands.rows import Submission
from engine_pg.commands.service import Commands
from engine_pg.db.database import Database
from engine_pg.errors import EngineError, HostBusy, HostUnreachable, NotHeld, OutcomeUnknown
from engine_pg.hosts.connections import HostConnections
from engine_pg.hosts.driver import HostStats, OpCtx, VmChanged, VmReport
from engine_pg.ids import hash64, new_id
from engine_pg.inventory import monitoring
from engine_pg.inventory.monitoring import Watched
from engine_pg.inventory.rows import Host, Vm
from engine_pg.inventory.writes import NewEvent, append_event

log = logging.getLogger(__name__)

PARTITIONS: Final = 8
FAILURES_BEFORE_CONNECTING: Final = 2
GRACE_S: Final = 60.0
_STATISTICS_S: Final = 15.0


def partition_name(number: int) -> str:
    """Return the name of a partition's leadership."""
    return f"monitor/{number:02d}"


def partition_of(host_id: UUID) -> int:
    """Return the partition that a host belongs to."""
    return hash64(str(host_id)) % PARTITIONS


class Monitor:
    """The singleton of one partition."""

    def __init__(
        self,
        db: Database,
        fencing: Fencing,
        hosts: HostConnections,
        commands: Commands,
        *,
        period_s: float,
        call_timeout_s: float,
    ) -> None:
        self._db = db
        self._fencing = fencing
        self._hosts = hosts
        self._commands = commands
        self._period_s = period_s
        self._call_timeout_s = call_timeout_s

    async def run(self, leadership: Leadership) -> None:
        """Watch the partition's hosts until cancelled."""
        number = int(leadership.name.rpartition("/")[2])
        watching: dict[UUID, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                await leadership.until_trusted()
                with suppress(EngineError):  # the database is away: the watches go on
                    async with self._db.read() as tx:
                        found = await monitoring.monitored_hosts(tx)
                    mine = {w.host.host_id for w in found if partition_of(w.host.host_id) == number}
                    for host_id in watching.keys() - mine:
                        watching.pop(host_id).cancel()
                    for host_id in mine - watching.keys():
                        watching[host_id] = group.create_task(self._watch(leadership, host_id))
                await asyncio.sleep(self._period_s)

    async def _watch(self, leadership: Leadership, host_id: UUID) -> None:
        bell = asyncio.Event()
        look = HostLook(self._db, self._fencing, leadership, self._commands)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ring_on_events(host_id, bell))
            while True:
                try:
                    await leadership.until_trusted()
                    await self._look(look, host_id)
                except NotHeld:
                    raise
                except EngineError as error:
                    log.info("looking at host %s failed: %s", host_id, error)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._period_s):
                        await bell.wait()
                bell.clear()

    async def _look(self, look: HostLook, host_id: UUID) -> None:
        watched, vms = await look.books(host_id)
        if watched is None:
            return
        ctx = OpCtx(new_id(), timeout_s=self._call_timeout_s)
        try:
            host = watched.host
            driver = await self._hosts.get(host_id, host.address, host.port, ctx)
            statistics = await driver.stats(ctx)
            reports = await driver.list_vms(ctx)
        except (HostUnreachable, HostBusy, OutcomeUnknown) as error:
            await look.missed(watched, error)
        else:
            await look.seen(watched, vms, statistics, reports)

    async def _ring_on_events(self, host_id: UUID, bell: asyncio.Event) -> None:
        """Ring when the host has something to tell; the connection is the node's common one."""
        while True:
            try:
                async with self._db.read() as tx:
                    found = await monitoring.monitored_hosts(tx)
                host = next((w.host for w in found if w.host.host_id == host_id), None)
                if host is not None:
                    ctx = OpCtx(new_id(), timeout_s=self._call_timeout_s)
                    driver = await self._hosts.get(host_id, host.address, host.port, ctx)
                    async for event in driver.events():
                        if isinstance(event, VmChanged):
                            bell.set()
            except EngineError as error:
                log.debug("no events of host %s: %s", host_id, error)
            await asyncio.sleep(self._period_s)


class HostLook:
    """What one watch makes of what its host tells."""

    def __init__(
        self, db: Database, fencing: Fencing, leadership: Leadership, commands: Commands
    ) -> None:
        self._db = db
        self._fencing = fencing
        self._leadership = leadership
        self._commands = commands
        self._statistics: HostStats | None = None
        self._written_at = 0.0

    async def books(self, host_id: UUID) -> tuple[Watched | None, list[tuple[Vm, bool]]]:
        """Return what the inventory says, read before the host is asked."""
        async with self._db.read() as tx:
            found = await monitoring.monitored_hosts(tx)
            vms = await monitoring.vms_of(tx, host_id)
        return next((w for w in found if w.host.host_id == host_id), None), vms

    async def seen(
        self,
        watched: Watched,
        vms: list[tuple[Vm, bool]],
        statistics: HostStats,
        reports: list[VmReport],
    ) -> None:
        """Write what changed; submit a reconciliation for each VM that ended or is gone."""
        states = {report.vm_id: report.state for report in reports}
        changed = [
            (vm, states[vm.vm_id])
            for vm, busy in vms
            if not busy and states.get(vm.vm_id, "down") not in ("down", vm.status)
        ]
        back = watched.host.status != "up" and not watched.busy
        due = boottime() - self._written_at > _STATISTICS_S or statistics != self._statistics
        if changed or back or due:
            await self._write(watched.host, changed, statistics, back=back)
        for vm, busy in vms:
            if not busy and states.get(vm.vm_id, "down") == "down":
                await self._commands.submit(
                    Submission(name="reconcile_vm", subject_id=vm.vm_id, params={"name": vm.name})
                )

    async def missed(self, watched: Watched, error: EngineError) -> None:
        """Count a failed look; a host that was silent for the grace period is not responsive."""
        host = watched.host
        self._statistics = None
        async with self._fencing.tx(self._leadership.fence) as tx:
            failures, silent_s = await monitoring.missed(tx, host.host_id)
            if host.status == "up" and failures >= FAILURES_BEFORE_CONNECTING:
                await monitoring.set_host_status(tx, host, "connecting", str(error)[:500])
            elif (
                host.status == "connecting"
                and silent_s > GRACE_S
                and await monitoring.set_host_status(tx, host, "non_responsive", str(error)[:500])
            ):
                await monitoring.set_vms_unknown(tx, host.host_id)
                append_event(tx, _about(host, 9008, "alert", "does not respond"))

    async def _write(
        self, host: Host, changed: list[tuple[Vm, str]], statistics: HostStats, *, back: bool
    ) -> None:
        async with self._fencing.tx(self._leadership.fence) as tx:
            await monitoring.seen(tx, host.host_id, asdict(statistics))
            for vm, status in changed:
                await monitoring.set_vm_status(tx, vm, status)
            if back and await monitoring.set_host_status(tx, host, "up"):
                append_event(tx, _about(host, 13, "normal", "is up"))
        self._statistics = statistics
        self._written_at = boottime()


def _about(host: Host, code: int, severity: str, what: str) -> NewEvent:
    return NewEvent(
        code=code,
        severity=severity,
        description=f"Host {host.name} {what}.",
        host_id=host.host_id,
        host_name=host.name,
        cluster_id=host.cluster_id,
    )
