"""The process: any number of simulated hosts and one control port, until told to stop.

One `TaskGroup` owns every connection and every call, so that a call outlives the connection it came
on; a mistake in any of them ends the process, since a judge that stumbles must not go on judging.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from engine_pg import __version__
from engine_pg.ids import derived_id, new_id
from engine_pg.simulator.control import Control
from engine_pg.simulator.dispatch import Spawn
from engine_pg.simulator.host import SimulatedHost
from engine_pg.simulator.journal import Journal
from engine_pg.simulator.machine import Machine, Spec, Timing
from engine_pg.simulator.port import Port
from engine_pg.simulator.replay import replay

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Options:
    """What is served, and where."""

    hosts: int = 1
    address: str = LOOPBACK
    base_port: int = 0
    control_port: int = 0
    control_address: str = LOOPBACK
    ready_file: Path | None = None
    fencing: Literal["all", "none"] = "all"
    memory_gib: int = 64
    cpus: int = 16
    timing: Timing = field(default_factory=Timing)

    def port(self, number: int) -> Port:
        """Return the port of a host."""
        return Port(self.address, self.base_port + number - 1 if self.base_port else 0)

    def spec(self, number: int, seed: str) -> Spec:
        """Return what a host is; the same seed gives the same hosts."""
        return Spec(
            number=number,
            uuid=derived_id("simulated-host", seed, number),
            memory_mib=self.memory_gib * 1024,
            cpus=self.cpus,
            fencing=self.fencing,
            timing=self.timing,
        )


class Simulator:
    """The hosts and the control port of one process."""

    def __init__(self, options: Options, journal: Journal, spawn: Spawn) -> None:
        memory = replay(journal.records())
        seed = memory.seed or str(new_id())
        journal.append(
            "process_started",
            seed=seed,
            pid=os.getpid(),
            version=__version__,
            hosts=options.hosts,
            fencing=options.fencing,
            torn_bytes=journal.torn_bytes,
        )
        self._hosts: dict[int, SimulatedHost] = {}
        self._control = Control(
            self._hosts, Port(options.control_address, options.control_port), spawn
        )
        for number in range(1, options.hosts + 1):
            spec, port = options.spec(number, seed), options.port(number)
            host = SimulatedHost(spec, memory.host(number), journal, port, spawn)
            host.machine.peers = self._machine_at
            self._hosts[number] = host

    async def open(self) -> None:
        """Accept connections."""
        for host in self._hosts.values():
            await host.open()
        await self._control.open()

    def _machine_at(self, address: str) -> Machine | None:
        found = (
            host.machine
            for host in self._hosts.values()
            if address == f"{host.port.address}:{host.port.number}" and host.port.listening
        )
        return next(found, None)

    def close(self) -> None:
        """Cut every connection and give the ports back."""
        self._control.port.release()
        for host in self._hosts.values():
            host.close()

    def description(self) -> dict[str, Any]:
        """Return what the ready file says: where everything is."""
        hosts = [
            {key: host.status()[key] for key in ("number", "address", "port", "uuid")}
            for host in self._hosts.values()
        ]
        return {"pid": os.getpid(), "control": self._control.port.number, "hosts": hosts}


class _Stopped(Exception):
    """Told to stop; ends the TaskGroup with everything in it."""


async def serve(
    options: Options, journal: Journal, ready: Callable[[dict[str, Any]], None]
) -> None:
    """Serve until SIGTERM or SIGINT; `ready` is called once, with what the ready file says."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        async with asyncio.TaskGroup() as group:
            simulator = Simulator(options, journal, group.create_task)
            try:
                await simulator.open()
                await journal.durable()
                if options.ready_file is not None:
                    _write_whole(options.ready_file, json.dumps(simulator.description()))
                ready(simulator.description())
                await stop.wait()
            finally:
                simulator.close()
            raise _Stopped
    except* _Stopped:
        journal.append("process_stopped")


def _write_whole(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(text + "\n", encoding="utf-8")
    part.replace(path)
