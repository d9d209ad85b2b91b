"""What one watch of a host makes of what the host tells, or of its silence.

Does not promise: that a silent host is dead. It only says how long it has been silent.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Final
from uuid import UUID

from engine_pg.clock import boottime
from engine_pg.cluster.fence import Fencing
from engine_pg.cluster.leaders import Leadership
from engine_pg.commands.rows import Submission
from engine_pg.commands.service import Commands
from engine_pg.db.database import Database
from engine_pg.errors import EngineError
from engine_pg.hosts.driver import HostStats, VmReport, VmState
from engine_pg.inventory import monitoring
from engine_pg.inventory.monitoring import Watched
from engine_pg.inventory.rows import Host, Vm
from engine_pg.inventory.writes import NewEvent, append_event

log = logging.getLogger(__name__)

FAILURES_BEFORE_CONNECTING: Final = 2
GRACE_S: Final = 60.0
_STATISTICS_S: Final = 15.0
_FIRST_PATIENCE_S: Final = 3.0
_LONGEST_PATIENCE_S: Final = 120.0


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
        self._looked = False
        self._patience: dict[UUID, tuple[float, float]] = {}  # until when, how long the next time

    async def books(self, host_id: UUID) -> tuple[Watched | None, list[tuple[Vm, bool]]]:
        """Return what the inventory says, read before the host is asked."""
        async with self._db.read() as tx:
            found = await monitoring.monitored_hosts(tx, host_id)
            vms = await monitoring.vms_of(tx, host_id)
        return (found[0] if found else None), vms

    async def seen(
        self,
        watched: Watched,
        vms: list[tuple[Vm, bool]],
        statistics: HostStats,
        reports: list[VmReport],
    ) -> None:
        """Write what changed; submit a reconciliation for each VM that ended or is gone."""
        states: dict[UUID, VmState] = {report.vm_id: report.state for report in reports}
        changed = [
            (vm, states[vm.vm_id])
            for vm, busy in vms
            if not busy and states.get(vm.vm_id, "down") not in ("down", vm.status)
        ]
        back = watched.host.status != "up" and not watched.busy
        due = boottime() - self._written_at > _STATISTICS_S or statistics != self._statistics
        if changed or back or due:
            await self._write(watched.host, changed, statistics, back=back)
        self._looked = True
        for vm, busy in vms:
            if not busy and states.get(vm.vm_id, "down") == "down":
                await self._reconcile(vm, watched.host)
        await self._find_strays(watched.host, vms, states)

    async def _find_strays(
        self, host: Host, vms: list[tuple[Vm, bool]], states: Mapping[UUID, VmState]
    ) -> None:
        """See to VMs that run here and elsewhere, or nowhere, by our books."""
        ours = {vm.vm_id for vm, _ in vms}
        running = {vm_id for vm_id, state in states.items() if state != "down"} - ours
        if not running:
            return
        async with self._db.read() as tx:
            strays = await monitoring.strays(tx, host.host_id, running)
        for vm in strays:
            if vm.host_id is None:
                await self._reconcile(vm, host)
            else:
                log.error("VM %s runs on host %s as well as on %s", vm.name, host.name, vm.host_id)

    async def _reconcile(self, vm: Vm, host: Host) -> None:
        """Submit a reconciliation, ever more seldom for a VM that it doesn't help."""
        until, next_s = self._patience.get(vm.vm_id, (0.0, _FIRST_PATIENCE_S))
        if boottime() < until:
            return
        if boottime() > until + _LONGEST_PATIENCE_S:
            next_s = _FIRST_PATIENCE_S
        self._patience[vm.vm_id] = (boottime() + next_s, min(next_s * 2, _LONGEST_PATIENCE_S))
        params = {"name": vm.name, "host_id": str(host.host_id)}
        await self._commands.submit(
            Submission(name="reconcile_vm", subject_id=vm.vm_id, params=params)
        )

    async def missed(self, watched: Watched, error: EngineError) -> None:
        """Count a failed look; a host that was silent for the grace period is not responsive."""
        host = watched.host
        self._statistics = None
        async with self._fencing.tx(self._leadership.fence) as tx:
            failures, silent_s = await monitoring.missed(tx, host.host_id, first=not self._looked)
            self._looked = True
            if host.status == "up" and failures >= FAILURES_BEFORE_CONNECTING:
                await monitoring.set_host_status(tx, host, "connecting", str(error)[:500])
            elif (
                host.status == "connecting"
                and silent_s > GRACE_S
                and await monitoring.set_host_status(tx, host, "non_responsive", str(error)[:500])
            ):
                await monitoring.set_vms_unknown(tx, host.host_id)
                await append_event(tx, _about(host, 9008, "alert", "does not respond"))

    async def _write(
        self, host: Host, changed: list[tuple[Vm, str]], statistics: HostStats, *, back: bool
    ) -> None:
        async with self._fencing.tx(self._leadership.fence) as tx:
            await monitoring.seen(tx, host.host_id, asdict(statistics))
            for vm, status in changed:
                await monitoring.set_vm_status(tx, vm, status)
            if back and await monitoring.set_host_status(tx, host, "up"):
                await append_event(tx, _about(host, 13, "normal", "is up"))
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
