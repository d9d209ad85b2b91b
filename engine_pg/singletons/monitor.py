"""Host monitoring, split into partitions: each a leadership, each watching its share of the hosts.

A host is looked at when it rings (an event) and on a period; what it tells goes into the inventory
under the partition's term. Where it contradicts the books about a VM, a command is submitted that
asks again under the VM's lock.

Does not promise: that a silent host is dead. It only says how long it has been silent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final
from uuid import UUID

from engine_pg.cluster.fence import Fencing
from engine_pg.cluster.leaders import Leadership
from engine_pg.commands.service import Commands
from engine_pg.configuration.live import LiveSettings
from engine_pg.db.database import Database
from engine_pg.errors import EngineError, HostBusy, HostUnreachable, NotHeld, OutcomeUnknown
from engine_pg.hosts.connections import HostConnections
from engine_pg.hosts.driver import OpCtx, VmChanged
from engine_pg.ids import new_id
from engine_pg.inventory import monitoring
from engine_pg.singletons.hostlook import HostLook
from engine_pg.singletons.restore_watch import RestoreWatch
from engine_pg.singletons.roster import Roster

log = logging.getLogger(__name__)

PARTITIONS: Final = 64
_COPY_S: Final = 15.0
"""How long a node copies in peace: one that is alone begins with all partitions at once."""


def partition_name(number: int) -> str:
    """Return the name of a partition's leadership."""
    return f"monitor/{number:02d}"


class Monitor:
    """The singleton of one partition; it begins once `copied` returns, or has taken too long."""

    def __init__(
        self,
        db: Database,
        fencing: Fencing,
        hosts: HostConnections,
        commands: Commands,
        settings: LiveSettings,
        copied: Callable[[], Awaitable[None]],
    ) -> None:
        self._db = db
        self._fencing = fencing
        self._hosts = hosts
        self._commands = commands
        self._settings = settings
        self._copied = copied
        self._restores = RestoreWatch(db, fencing)
        self._roster = Roster(db, partitions=PARTITIONS, age_s=lambda: self._period_s / 2)

    @property
    def _period_s(self) -> float:
        return self._settings.now.monitor_period_s

    def _ctx(self) -> OpCtx:
        return OpCtx(new_id(), timeout_s=self._settings.now.host_call_timeout_s)

    async def run(self, leadership: Leadership) -> None:
        """Watch the partition's hosts until cancelled."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_COPY_S):
                await self._copied()
        number = int(leadership.name.rpartition("/")[2])
        watching: dict[UUID, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                await leadership.until_trusted()
                with suppress(EngineError):  # the database is away: the watches go on
                    mine = await self._roster.of(number)
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
                    await self._look(look, leadership, host_id)
                except NotHeld:
                    raise
                except EngineError as error:
                    log.info("looking at host %s failed: %s", host_id, error)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._period_s):
                        await bell.wait()
                bell.clear()

    async def _look(self, look: HostLook, leadership: Leadership, host_id: UUID) -> None:
        watched, vms = await look.books(host_id)
        if watched is None:
            return
        ctx = self._ctx()
        try:
            host = watched.host
            driver = await self._hosts.get(host_id, host.address, host.port, ctx)
            await self._restores.compare(leadership, host, driver, ctx)
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
                    found = await monitoring.monitored_hosts(tx, host_id)
                if found:
                    host = found[0].host
                    ctx = self._ctx()
                    driver = await self._hosts.get(host_id, host.address, host.port, ctx)
                    async for event in driver.events():
                        if isinstance(event, VmChanged):
                            bell.set()
            except EngineError as error:
                log.debug("no events of host %s: %s", host_id, error)
            await asyncio.sleep(self._period_s)
