"""The control port: faults are put in and taken out while the hosts run, one JSON line each way.

- `{"host": 1, "fault": "delay", "verbs": ["VM.create"], "seconds": 2, "when": "after"}` gives
  `{"ok": true}`, or `{"ok": false, "error": "..."}`;
- `{"status": true}` gives `{"ok": true, "hosts": [...]}`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, cast, get_args

from engine_pg.errors import EngineError, Invalid, NotFound
from engine_pg.hosts.vdsm.constants import ExitReason
from engine_pg.simulator.dispatch import Spawn
from engine_pg.simulator.faults import Hold, When
from engine_pg.simulator.host import SimulatedHost
from engine_pg.simulator.machine import running
from engine_pg.simulator.port import Port
from engine_pg.simulator.verbs import VERBS
from engine_pg.simulator.vm import Exit

FaultName = Literal[
    "hang", "crash", "delay", "refuse-connections", "vm-crash", "vm-shutdown", "heal"
]  # fmt: skip
MAX_SECONDS: Final = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault to put into one host."""

    host: int
    name: FaultName
    verbs: frozenset[str] | None = None
    seconds: float | None = None
    when: When = "before"
    vm_id: str = ""

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Fault:
        """Read a fault as the control port takes it."""
        unknown = raw.keys() - {"host", "fault", "verbs", "seconds", "when", "vm"}
        if unknown:
            raise Invalid(f"There is no {', '.join(sorted(unknown))} in a fault.")
        host: Any = raw.get("host")
        if type(host) is not int:
            raise Invalid("A fault needs the number of a host.")
        name: Any = raw.get("fault")
        if name not in get_args(FaultName):
            names = ", ".join(get_args(FaultName))
            raise Invalid(f"There is no fault {name!r}; there are {names}.")
        when: Any = raw.get("when", "before")
        if when not in get_args(When):
            raise Invalid("A fault comes before or after.")
        seconds = _seconds(raw.get("seconds"))
        if name == "delay" and seconds is None:
            raise Invalid("A delay needs seconds.")
        return cls(host, name, _verbs(raw.get("verbs")), seconds, when, _vm(name, raw.get("vm")))


def inject(hosts: Mapping[int, SimulatedHost], fault: Fault) -> None:
    """Put a fault into its host."""
    host = hosts.get(fault.host)
    if host is None:
        raise NotFound(f"There is no host {fault.host}.")
    apply = _APPLY[fault.name]
    host.record(
        "fault",
        fault=fault.name,
        verbs=sorted(fault.verbs) if fault.verbs is not None else None,
        seconds=fault.seconds,
        when=fault.when,
        vm=fault.vm_id or None,
    )
    apply(host, fault)


def _hang(host: SimulatedHost, fault: Fault) -> None:
    host.hold(Hold(fault.when, fault.verbs, None), for_s=fault.seconds)


def _delay(host: SimulatedHost, fault: Fault) -> None:
    host.hold(Hold(fault.when, fault.verbs, fault.seconds))


def _end_vm(host: SimulatedHost, fault: Fault, end: Exit) -> None:
    host.machine.stop(running(host.machine, fault.vm_id), end)


_APPLY: Final[dict[FaultName, Callable[[SimulatedHost, Fault], None]]] = {
    "hang": _hang,
    "delay": _delay,
    "crash": lambda host, fault: host.crash(fault.seconds or 0.0),
    "refuse-connections": lambda host, fault: host.refuse(fault.seconds),
    "vm-crash": lambda host, fault: _end_vm(
        host, fault, Exit.of(ExitReason.LOST_QEMU, failed=True)
    ),
    "vm-shutdown": lambda host, fault: _end_vm(host, fault, Exit.of(ExitReason.USER_SHUTDOWN)),
    "heal": lambda host, _: host.heal(),
}


class Control:
    """Serves the control port, on the loopback interface whatever the hosts' address."""

    def __init__(self, hosts: Mapping[int, SimulatedHost], port: Port, spawn: Spawn) -> None:
        self.port = port
        self._hosts = hosts
        self._spawn = spawn

    async def open(self) -> None:
        """Accept connections."""
        await self.port.open(self._accept)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._spawn(self._serve(reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(json.dumps(self._answer(line)).encode() + b"\n")
                await writer.drain()
        except (OSError, ValueError):  # gone, or a line that is too long
            pass
        finally:
            writer.close()

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            raw: object = json.loads(line)
            if not isinstance(raw, dict):
                raise Invalid("A request is an object.")
            request = cast("dict[str, Any]", raw)
            if request.get("status") is True:
                return {"ok": True, "hosts": [host.status() for host in self._hosts.values()]}
            inject(self._hosts, Fault.parse(request))
        except (ValueError, RecursionError):
            return {"ok": False, "error": "This is no JSON."}
        except EngineError as error:
            return {"ok": False, "error": str(error)}
        return {"ok": True}


def _vm(fault: str, raw: object) -> str:
    if raw is None and fault.startswith("vm-"):
        raise Invalid(f"The fault {fault} needs a vm.")
    return "" if raw is None else str(raw).lower()


def _verbs(raw: object) -> frozenset[str] | None:
    if raw is None:
        return None
    if not isinstance(raw, list):
        raise Invalid("The verbs are no list.")
    verbs = frozenset(str(verb) for verb in cast("list[object]", raw))
    if not verbs <= VERBS.keys():
        raise Invalid(f"Not verbs of this host: {', '.join(sorted(verbs - VERBS.keys()))}.")
    return verbs


def _seconds(raw: object) -> float | None:
    if raw is None:
        return None
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not 0 <= raw <= MAX_SECONDS:
        raise Invalid(f"Not seconds: {raw!r}.")
    return float(raw)
