from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID, uuid4

import pytest

from engine_pg.errors import Invalid
from engine_pg.hosts.vdsm.constants import ErrorCode
from engine_pg.simulator.answers import CallFailed
from engine_pg.simulator.domain import parse_domain
from engine_pg.simulator.machine import EVENT_TIME_BASE, Boot, Machine, Spec, Timing
from engine_pg.simulator.replay import replay
from engine_pg.simulator.verbs import VERBS, vm_of

VM = "6f1a2c34-5b7d-4e8f-9a01-23456789abcd"
XML = f"<domain><name>web</name><uuid>{VM}</uuid><memory unit='MiB'>256</memory></domain>"
CREATE = {"vmID": VM, "vmParams": {"xml": XML}}


@dataclass
class Timer:
    at: float
    callback: object
    cancelled: bool = False

    def cancel(self):
        self.cancelled = True


@dataclass
class World:
    """Time that passes when told to, and the journal's and the subscribers' end."""

    now: float = 100.0
    timers: list[Timer] = field(default_factory=list)
    records: list[dict] = field(default_factory=list)
    events: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self):
        self.machine = self.boot()

    def boot(self) -> Machine:
        spec = Spec(1, UUID(int=1), timing=Timing(launch_s=1, boot_s=2, shutdown_s=3))
        return Machine(spec, Boot("boot", 100.0), self, self.later, lambda: self.now)

    def record(self, kind, **fields):
        self.records.append({"seq": len(self.records), "kind": kind, "host": 1} | fields)

    def announce(self, vm):
        self.events.append((vm.vm_id, vm.status))

    def later(self, delay, callback):
        self.timers.append(Timer(self.now + delay, callback))
        return self.timers[-1]

    def pass_time(self, seconds: float):
        end = self.now + seconds
        while due := [t for t in self.timers if t.at <= end and not t.cancelled]:
            timer = min(due, key=lambda t: t.at)
            self.timers.remove(timer)
            self.now = timer.at
            timer.callback()
        self.now = end

    def call(self, method: str, params: dict | list | None = None):
        verb = VERBS[method]
        arguments = verb.arguments(params or {})
        verb.require(arguments)
        return verb.run(self.machine, arguments)

    def status(self) -> str | None:
        return {vm.vm_id: vm.status for vm in self.machine.vms}.get(VM)


@pytest.fixture
def world():
    return World()


def code_of(world: World, method: str, params: dict | list | None = None) -> int:
    with pytest.raises(CallFailed) as failed:
        world.call(method, params)
    return failed.value.code


def test_a_created_vm_comes_up_in_its_time(world):
    assert world.call("VM.create", CREATE)["status"] == "WaitForLaunch"
    world.pass_time(0.9)
    assert world.status() == "WaitForLaunch"
    world.pass_time(0.1)
    assert world.status() == "PoweringUp"
    world.pass_time(2)
    assert world.status() == "Up"
    assert [status for _, status in world.events] == ["WaitForLaunch", "PoweringUp", "Up"]
    (vm,) = world.call("Host.getVMList")
    assert vm == {"vmId": VM, "status": "Up", "statusTime": str(EVENT_TIME_BASE + 3000)}


def test_a_vm_launched_paused_waits_for_cont(world):
    paused = {"vmID": VM, "vmParams": {"xml": XML, "launchPaused": "true"}}
    world.call("VM.create", paused)
    world.pass_time(10)
    assert world.status() == "Paused"
    assert world.call("VM.cont", [VM]) == {"vmList": {}}
    assert world.status() == "Up"
    assert code_of(world, "VM.cont", [VM]) == ErrorCode.UNEXPECTED


def test_a_shut_down_vm_becomes_a_tombstone_with_the_reason(world):
    world.call("VM.create", CREATE)
    world.pass_time(5)
    assert world.call("VM.shutdown", {"vmID": VM.upper(), "delay": "4"}) is True
    world.pass_time(6)
    assert world.call("VM.shutdown", [VM]) is True  # again: changes nothing
    assert world.status() == "PoweringDown"
    world.pass_time(1)
    (down,) = world.call("VM.getStats", [VM])
    assert down["status"] == "Down"
    assert (down["exitCode"], down["exitReason"]) == (0, 6)
    assert code_of(world, "VM.create", CREATE) == ErrorCode.VM_EXISTS
    assert code_of(world, "VM.shutdown", [VM]) == ErrorCode.NO_SUCH_VM
    assert code_of(world, "VM.pause", [VM]) == ErrorCode.VM_DOWN
    assert world.call("VM.destroy", [VM]) is True
    assert world.status() is None
    assert world.call("VM.create", CREATE)


@pytest.mark.parametrize("delay", [float("inf"), "soon", [1]])
def test_a_delay_that_is_none_is_an_internal_error(world, delay):
    world.call("VM.create", CREATE)
    assert code_of(world, "VM.shutdown", {"vmID": VM, "delay": delay}) == ErrorCode.INTERNAL


def test_destroying_stops_what_was_to_come(world):
    world.call("VM.create", CREATE)
    world.call("VM.destroy", [VM])
    world.pass_time(10)
    assert world.status() is None
    assert [status for _, status in world.events] == ["WaitForLaunch", "Down"]


@pytest.mark.parametrize(
    ("method", "more"), [("VM.reset", {}), ("VM.shutdown", {"reboot": "true"})]
)
def test_a_restarting_vm_comes_back(world, method, more):
    world.call("VM.create", CREATE)
    world.pass_time(5)
    world.call(method, {"vmID": VM} | more)
    assert world.status() == "RebootInProgress"
    world.pass_time(3)
    assert world.status() == "Up"


def test_a_vm_that_nobody_knows_is_error_1(world):
    for method in ("VM.getStats", "VM.destroy", "VM.shutdown", "VM.pause", "VM.cont", "VM.reset"):
        assert code_of(world, method, [VM]) == ErrorCode.NO_SUCH_VM


def test_the_identity_is_the_one_inside_the_xml(world):
    created = world.call("VM.create", {"vmID": str(uuid4()), "vmParams": {"xml": XML}})
    assert created["vmId"] == VM
    assert vm_of("VM.create", {"vmParams": {"xml": XML}}) == VM


@pytest.mark.parametrize(
    "xml",
    [
        None,
        "",
        "<domain/>",
        "<domain><uuid>nobody</uuid></domain>",
        f"<domain><uuid>{VM}</uuid><memory unit='XB'>1</memory></domain>",
        f"<domain><uuid>{VM}</uuid><vcpu>many</vcpu></domain>",
        f"<domain><uuid>{VM}</uuid><vcpu>{10**400}</vcpu></domain>",
        f"<domain><uuid>{VM}</uuid><memory unit='b'>{10**400}</memory></domain>",
        f'<!DOCTYPE d [<!ENTITY e "x">]><domain><uuid>{VM}</uuid><name>&e;</name></domain>',
    ],
)
def test_bad_xml_creates_nothing(world, xml):
    with pytest.raises(Invalid):
        parse_domain(xml)
    assert code_of(world, "VM.create", [VM, {"xml": xml}]) == ErrorCode.INTERNAL
    assert world.machine.vms == []


def test_missing_and_surplus_arguments_are_internal_errors(world):
    assert code_of(world, "VM.destroy") == ErrorCode.INTERNAL
    assert code_of(world, "Host.echo", []) == ErrorCode.INTERNAL
    assert code_of(world, "Host.echo", [1, 2]) == ErrorCode.INTERNAL
    assert code_of(world, "VM.create", [VM, "no object"]) == ErrorCode.INTERNAL
    assert code_of(world, "VM.destroy", [[VM]]) == ErrorCode.INTERNAL
    assert world.call("Host.echo", {"message": "hi", "unknown": 1}) == "hi"


def test_statistics_count_what_runs(world):
    idle = world.call("Host.getStats")
    world.call("VM.create", CREATE)
    world.pass_time(5)
    busy = world.call("Host.getStats")
    assert (idle["vmCount"], idle["vmActive"]) == (0, 0)
    assert (busy["vmCount"], busy["vmActive"]) == (1, 1)
    assert idle["memFree"] - busy["memFree"] == 256
    assert float(busy["cpuIdle"]) < float(idle["cpuIdle"])


def test_dumpxmls_gives_what_was_asked_for_alone(world):
    world.call("VM.create", CREATE)
    assert world.call("Host.dumpxmls", {"vmList": [VM]}) == {VM: XML}
    assert world.call("Host.dumpxmls") == {}
    assert code_of(world, "Host.dumpxmls", [["nobody"]]) == ErrorCode.INTERNAL


def test_the_list_can_be_narrowed(world):
    world.call("VM.create", CREATE)
    assert world.call("Host.getVMList", {"vmList": [str(uuid4())]}) == []
    assert len(world.call("Host.getVMList", {"vmList": [VM], "onlyUUID": True})) == 1


def test_a_power_cut_loses_every_vm(world):
    world.call("VM.create", CREATE)
    world.machine.lose_vms()
    world.pass_time(10)
    assert world.machine.vms == []
    assert world.records[-1]["kind"] == "vm_stopped"
    assert replay(world.records).host(1).vms == {}


@pytest.mark.parametrize("seconds", [0, 1, 3, 5])
def test_a_restored_machine_goes_on_where_it_was(world, seconds):
    world.call("VM.create", CREATE)
    world.pass_time(seconds)
    if seconds == 5:
        world.call("VM.shutdown", [VM])
    before = [vm.stats() for vm in world.machine.vms]
    world.timers.clear()
    world.machine = world.boot()
    world.machine.restore(replay(world.records).host(1).vms.values())
    assert [vm.stats() for vm in world.machine.vms] == before
    world.pass_time(10)
    assert world.status() == ("Down" if seconds == 5 else "Up")


def test_tombstones_are_restored(world):
    world.call("VM.create", CREATE)
    world.call("VM.shutdown", [VM])
    world.pass_time(10)
    (vm,) = replay(world.records).host(1).vms.values()
    assert vm.stats() == world.machine.find(VM).stats()


def test_a_journal_of_something_else_is_refused():
    with pytest.raises(Invalid, match="Record 5"):
        replay([{"seq": 5, "kind": "vm_moved", "host": 1, "vm": VM}])
