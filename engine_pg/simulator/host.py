"""One simulated host: a port, a broker, a machine with its gate, and the faults put into it."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from engine_pg.clock import boottime
from engine_pg.ids import new_id
from engine_pg.simulator.broker import Broker
from engine_pg.simulator.connection import Connection, Origin
from engine_pg.simulator.dispatch import Dispatcher, Spawn
from engine_pg.simulator.faults import Hold, Holds
from engine_pg.simulator.journal import Journal
from engine_pg.simulator.machine import Boot, Machine, Spec
from engine_pg.simulator.port import Port
from engine_pg.simulator.replay import HostMemory
from engine_pg.simulator.vm import Vm
from engine_pg.simulator.workers import Workers

MAX_CLIENTS: Final = 256


class SimulatedHost:
    """A host that answers on its port."""

    def __init__(
        self, spec: Spec, memory: HostMemory, journal: Journal, port: Port, spawn: Spawn
    ) -> None:
        self.spec = spec
        self.port = port
        self._journal = journal
        self._spawn = spawn
        self._loop = asyncio.get_running_loop()
        self._broker = Broker()
        self._holds = Holds()
        boot = memory.boot or self._new_boot()
        self.machine = Machine(spec, boot, self, self._loop.call_later)
        self.machine.highest_token = lambda: memory.gate.highest
        self._workers = Workers(
            self.machine, memory.gate, self._holds, self.record, journal.durable
        )
        self._dispatcher = Dispatcher(self._broker, self._workers, self.record, spawn)
        self._connections: dict[int, Connection] = {}
        self._return: asyncio.TimerHandle | None = None
        self.machine.restore(memory.vms.values())

    async def open(self) -> None:
        """Accept connections."""
        await self.port.open(self._accept)

    def close(self) -> None:
        """End everything."""
        self.port.release()
        self._drop_connections()

    def record(self, kind: str, **fields: object) -> int:
        """Write a record of this host."""
        return self._journal.append(kind, host=self.spec.number, **fields)

    def announce(self, vm: Vm) -> None:
        """Send an event about a VM."""
        state = vm.brief() if vm.running else vm.stats()
        params = {vm.vm_id: state, "notify_time": self.machine.event_time()}
        self._broker.notify("VM_status", vm.vm_id, params)

    def hold(self, hold: Hold, *, for_s: float | None = None) -> None:
        """Hold calls from now on, until `heal` or for some seconds."""
        self._holds.add(hold)
        if for_s is not None:
            self._loop.call_later(for_s, self._holds.remove, hold)

    def refuse(self, seconds: float | None) -> None:
        """Refuse new connections, until `heal` or for some seconds."""
        self.port.close()
        self._open_after(seconds)

    def crash(self, seconds: float) -> None:
        """Lose connections, calls and VMs, as by a power cut, and boot again after some seconds."""
        self.port.close()
        self._drop_connections()
        self._dispatcher.reset()
        self.machine.lose_vms()
        self.machine.boot = self._new_boot()
        self._open_after(seconds)

    def heal(self) -> None:
        """End every fault; calls that are held stay so."""
        self._holds.clear()
        self._dispatcher.listen()
        self._open_after(0.0)

    def status(self) -> dict[str, Any]:
        """Return what goes on."""
        return {
            "number": self.spec.number,
            "uuid": str(self.spec.uuid),
            "boot_id": self.machine.boot.boot_id,
            "address": self.port.address,
            "port": self.port.number,
            "listening": self.port.listening,
            "connections": [one.origin.peer for one in self._connections.values()],
            "calls": self._workers.calls,
            "vms": {vm.vm_id: vm.status for vm in self.machine.vms},
        }

    def _new_boot(self) -> Boot:
        boot = Boot(str(new_id()), boottime())
        self.record("host_booted", boot_id=boot.boot_id, booted_at=boot.booted_at)
        return boot

    def _open_after(self, seconds: float | None) -> None:
        if self._return is not None:
            self._return.cancel()
            self._return = None
        if seconds is not None:
            self._return = self._loop.call_later(seconds, lambda: self._spawn(self.open()))

    def _drop_connections(self) -> None:
        for connection in self._connections.values():
            connection.drop()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= MAX_CLIENTS or writer.is_closing():
            writer.transport.abort()
            return
        peer = "{}:{}".format(*(writer.get_extra_info("peername") or ("unknown", 0)))
        origin = Origin(self.record("connected", peer=peer), peer)
        receive = self._dispatcher.receive
        connection = Connection(origin, (reader, writer), self._broker, receive)
        self._connections[origin.connection] = connection
        self._spawn(self._serve(connection))

    async def _serve(self, connection: Connection) -> None:
        try:
            reason = await connection.serve()
            self.record("disconnected", connection=connection.origin.connection, reason=reason)
        finally:
            del self._connections[connection.origin.connection]
