"""The verbs: what each call does to the machine, and what it answers.

Results have VDSM's shape: most numbers are strings, and nothing is `true`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

from engine_pg import __version__
from engine_pg.errors import Invalid
from engine_pg.hosts.vdsm.constants import (
    ENGINE_FENCING,
    ENGINE_FENCING_ALL,
    ENGINE_HIGHEST_TOKEN,
    ErrorCode,
)
from engine_pg.simulator.answers import CallFailed, internal
from engine_pg.simulator.domain import parse_domain
from engine_pg.simulator.machine import EVENT_TIME_BASE, Machine, create, destroy, running
from engine_pg.simulator.migration import cancel, migrate
from engine_pg.simulator.vm import OUTGOING, Status

MAX_ID: Final = 100

Arguments = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb: its parameters in order (the first `required` are mandatory) and what it does."""

    run: Callable[[Machine, Arguments], object]
    parameters: tuple[str, ...] = ()
    required: int = 0
    mutating: bool = False

    def arguments(self, params: dict[str, Any] | list[Any]) -> Arguments:
        """Return the parameters by name; what the verb does not know is dropped."""
        if isinstance(params, list):
            if len(params) > len(self.parameters):
                raise internal("too many arguments")
            return dict(zip(self.parameters, params, strict=False))
        return {name: params[name] for name in self.parameters if name in params}

    def require(self, arguments: Arguments) -> None:
        """Refuse a call that lacks a mandatory parameter."""
        missing = [name for name in self.parameters[: self.required] if name not in arguments]
        if missing:
            raise internal(f"missing arguments: {', '.join(missing)}")


def vm_of(method: str, arguments: Arguments) -> str | None:
    """Return the VM that a call is about; a creation names it inside the XML alone."""
    if method == "VM.create":
        params: object = arguments.get("vmParams")
        xml: object = cast("Arguments", params).get("xml") if isinstance(params, dict) else None
        try:
            return parse_domain(xml).vm_id
        except Invalid:
            return None
    vm_id: object = arguments.get("vmID")
    return vm_id.lower()[:MAX_ID] if isinstance(vm_id, str) else None


def _ping(_: Machine, __: Arguments) -> object:
    return True


def _capabilities(machine: Machine, _: Arguments) -> object:
    spec = machine.spec
    highest = {ENGINE_HIGHEST_TOKEN: str(machine.highest_token())}
    fencing = {ENGINE_FENCING: ENGINE_FENCING_ALL} | highest if spec.fencing == "all" else {}
    facts: dict[str, Any] = {
        "uuid": str(spec.uuid),
        "boot_uuid": machine.boot.boot_id,
        "cpuCores": str(spec.cpus),
        "cpuThreads": str(spec.cpus),
        "cpuSockets": "1",
        "cpuModel": "Simulated processor",
        "cpuSpeed": "2400.000",
        "cpuFlags": "nx,lm,vmx,model_Nehalem,model_Westmere,model_SandyBridge",
        "memSize": str(spec.memory_mib),
        "reservedMem": "321",
        "guestOverhead": "65",
        "kvmEnabled": "true",
        "emulatedMachines": ["pc-q35-rhel8.6.0", "pc-q35-rhel9.2.0", "q35", "pc"],
        "clusterLevels": ["4.5", "4.6", "4.7", "4.8"],
        "supportedENGINEs": ["4.5"],
        "software_version": __version__,
        "software_revision": "0",
        "operatingSystem": {"name": "engine-pg host-sim", "version": __version__, "release": "0"},
        "packages2": {"vdsm": {"version": __version__, "release": "0"}},
        "selinux": {"mode": "1"},
        "numaNodes": {"0": {"cpus": list(range(spec.cpus)), "totalMemory": str(spec.memory_mib)}},
        "HBAInventory": {"iSCSI": [], "FC": []},
        "nics": {},
        "bondings": {},
        "vlans": {},
        "bridges": {},
        "networks": {},
        "domain_versions": [0, 2, 3, 4, 5],
    }
    return facts | fencing


def _statistics(machine: Machine, _: Arguments) -> object:
    alive = [vm for vm in machine.vms if vm.running]
    used_mib = sum(vm.domain.memory_kib for vm in alive) // 1024
    total_mib = machine.spec.memory_mib
    load = min(100.0, 100.0 * sum(vm.domain.cpus for vm in alive) / machine.spec.cpus / 4)
    return {
        "cpuIdle": f"{100 - load:.2f}",
        "cpuUser": f"{load:.2f}",
        "cpuSys": "0.00",
        "cpuLoad": f"{load / 100:.2f}",
        "memFree": max(0, total_mib - used_mib),
        "memAvailable": max(0, total_mib - used_mib),
        "memCommitted": used_mib,
        "memUsed": str(min(100, round(100 * used_mib / total_mib))),
        "vmCount": len(machine.vms),
        "vmActive": sum(vm.status == "Up" for vm in alive),
        "vmMigrating": sum(vm.status == OUTGOING for vm in alive),
        "network": {},
        "diskStats": {},
        "storageDomains": {},
        "haStats": {"configured": False},
        "momStatus": "active",
        "elapsedTime": str((machine.event_time() - EVENT_TIME_BASE) // 1000),
    }


def _list(machine: Machine, arguments: Arguments) -> object:
    wanted = _ids(arguments)
    return [vm.brief() for vm in machine.vms if not wanted or vm.vm_id in wanted]


def _dump(machine: Machine, arguments: Arguments) -> object:
    known = {vm.vm_id: vm.xml for vm in machine.vms}
    try:
        return {vm_id: known[vm_id] for vm_id in _ids(arguments)}
    except KeyError as error:
        raise internal(error) from error


def _ids(arguments: Arguments) -> list[str]:
    ids: object = arguments.get("vmList")
    items = cast("list[object]", ids) if isinstance(ids, list) else []
    return [vm_id for vm_id in items if isinstance(vm_id, str)]


def _create(machine: Machine, arguments: Arguments) -> object:
    params: object = arguments["vmParams"]
    if not isinstance(params, dict):
        raise internal("vmParams is no object")
    fields = cast("Arguments", params)
    xml: object = fields.get("xml")
    try:
        domain = parse_domain(xml)
    except Invalid as error:
        raise internal(error) from error
    vm = create(machine, domain, str(xml), paused=_flag(fields.get("launchPaused")))
    return vm.brief() | {"xml": vm.xml}


def _destroy(machine: Machine, arguments: Arguments) -> object:
    destroy(machine, _vm_id(arguments))
    return True


def _shutdown(machine: Machine, arguments: Arguments) -> object:
    vm = running(machine, _vm_id(arguments))
    try:
        delay_s = min(max(0, int(arguments.get("delay") or 0)), 24 * 3600)
    except (TypeError, ValueError, OverflowError) as error:
        raise internal(error) from error
    target: Status = "RebootInProgress" if _flag(arguments.get("reboot")) else "PoweringDown"
    if vm.status != target:
        machine.move(vm, target, delay_s=delay_s)
    return True


def _pause(machine: Machine, arguments: Arguments) -> object:
    vm = running(machine, _vm_id(arguments), if_down=ErrorCode.VM_DOWN)
    machine.move(vm, "Paused")
    return {"vmList": {}}


def _cont(machine: Machine, arguments: Arguments) -> object:
    vm = running(machine, _vm_id(arguments), if_down=ErrorCode.VM_DOWN)
    if vm.status != "Paused":
        raise CallFailed(ErrorCode.UNEXPECTED, "Unexpected exception")
    machine.move(vm, "Up")
    return {"vmList": {}}


def _reset(machine: Machine, arguments: Arguments) -> object:
    machine.move(running(machine, _vm_id(arguments)), "RebootInProgress")
    return True


def _migrate(machine: Machine, arguments: Arguments) -> object:
    params: object = arguments["params"]
    destination: object = cast("Arguments", params).get("dst") if isinstance(params, dict) else None
    if not isinstance(destination, str):
        raise CallFailed(ErrorCode.MISSING_PARAMETER, "Missing required parameter: dst")
    migrate(machine, _vm_id(arguments), destination)
    return True


def _migrate_cancel(machine: Machine, arguments: Arguments) -> object:
    cancel(machine, _vm_id(arguments))
    return True


def _vm_id(arguments: Arguments) -> str:
    vm_id: object = arguments["vmID"]
    if not isinstance(vm_id, str):
        raise internal("vmID is no string")
    return vm_id.lower()


def _flag(value: object) -> bool:
    return value is True or (isinstance(value, str) and value.lower() == "true")


_SHUTDOWN: Final = ("vmID", "delay", "message", "reboot", "timeout", "force")

VERBS: Final[dict[str, Verb]] = {
    "Host.ping2": Verb(_ping),
    "Host.echo": Verb(lambda _, arguments: arguments["message"], ("message",), 1),
    "Host.getCapabilities": Verb(_capabilities),
    "Host.getStats": Verb(_statistics),
    "Host.getAllVmStats": Verb(lambda machine, _: [vm.stats() for vm in machine.vms]),
    "Host.getVMList": Verb(_list, ("vmList", "onlyUUID")),
    "Host.dumpxmls": Verb(_dump, ("vmList",)),
    "VM.getStats": Verb(
        lambda machine, arguments: [machine.find(_vm_id(arguments)).stats()], ("vmID",), 1
    ),
    "VM.create": Verb(_create, ("vmID", "vmParams"), 2, mutating=True),
    "VM.destroy": Verb(_destroy, ("vmID", "gracefulAttempts"), 1, mutating=True),
    "VM.shutdown": Verb(_shutdown, _SHUTDOWN, 1, mutating=True),
    "VM.migrate": Verb(_migrate, ("vmID", "params"), 2, mutating=True),
    "VM.migrateCancel": Verb(_migrate_cancel, ("vmID",), 1, mutating=True),
    "VM.pause": Verb(_pause, ("vmID",), 1, mutating=True),
    "VM.cont": Verb(_cont, ("vmID",), 1, mutating=True),
    "VM.reset": Verb(_reset, ("vmID",), 1, mutating=True),
}
