"""What earlier processes left: hosts, VMs and gates, read back from the journal in one pass."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from engine_pg.errors import Invalid
from engine_pg.simulator.domain import parse_domain
from engine_pg.simulator.gate import Gate, parse_grants
from engine_pg.simulator.journal import Record
from engine_pg.simulator.machine import Boot
from engine_pg.simulator.vm import INCOMING, Exit, Vm


@dataclass(slots=True)
class HostMemory:
    """What the journal says about one host."""

    gate: Gate = field(default_factory=Gate)
    boot: Boot | None = None
    vms: dict[str, Vm] = field(default_factory=dict[str, Vm])


@dataclass(slots=True)
class Memory:
    """What the journal says."""

    seed: str | None = None
    hosts: dict[int, HostMemory] = field(default_factory=dict[int, HostMemory])

    def host(self, number: int) -> HostMemory:
        """Return what is known of a host, nothing at first."""
        return self.hosts.setdefault(number, HostMemory())


def replay(records: Iterable[Record]) -> Memory:
    """Rebuild the state that these records lead to."""
    memory = Memory()
    for record in records:
        try:
            _apply(memory, record)
        except (KeyError, TypeError, ValueError, Invalid) as error:
            raise Invalid(f"Record {record['seq']} of the journal is not understood.") from error
    return memory


def _apply(memory: Memory, record: Record) -> None:
    match record["kind"]:
        case "process_started":
            memory.seed = str(record["seed"])
        case "call_begun":
            if not record["refused"]:
                memory.host(record["host"]).gate.accept(parse_grants(record["fence"]))
        case "host_booted":
            host = memory.host(record["host"])
            host.boot = Boot(record["boot_id"], record["booted_at"])
            host.vms.clear()
        case "vm_started" | "vm_incoming" | "vm_moved" | "vm_stopped" | "vm_forgotten":
            _apply_vm(memory.host(record["host"]).vms, record)
        case _:
            pass


def _apply_vm(vms: dict[str, Vm], record: dict[str, Any]) -> None:
    match record["kind"]:
        case "vm_started":
            vm = Vm(parse_domain(record["xml"]), record["xml"], paused=record["paused"])
            vm.status_time = record["time"]
            vms[vm.vm_id] = vm
        case "vm_incoming":
            vm = Vm(parse_domain(record["xml"]), record["xml"], INCOMING, record["time"])
            vms[vm.vm_id] = vm
        case "vm_moved":
            vm = vms[record["vm"]]
            vm.status, vm.status_time = record["status"], record["time"]
        case "vm_stopped" if record.get("lost"):
            del vms[record["vm"]]
        case "vm_stopped":
            vm = vms[record["vm"]]
            vm.exit = Exit(record["exit_code"], record["exit_reason"], record["exit_message"])
            vm.status, vm.status_time = "Down", record["time"]
        case _:
            del vms[record["vm"]]
