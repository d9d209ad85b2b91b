"""Migration between simulated machines: what both list meanwhile, and what a failure leaves."""

from __future__ import annotations

import pytest
from unit.test_simulator_machine import CREATE, VM, World, code_of

from engine_pg.hosts.vdsm.constants import ErrorCode
from engine_pg.simulator.replay import replay

TO_B = {"vmID": VM, "params": {"dst": "b"}}


@pytest.fixture
def pair():
    a, b = World(), World()
    a.machine.peers = lambda address: {"a": a.machine, "b": b.machine}.get(address)
    a.call("VM.create", CREATE)
    a.pass_time(5)
    return a, b


def kinds(world: World) -> list[str]:
    return [record["kind"] for record in world.records]


def test_a_vm_is_on_its_way_and_then_there(pair):
    a, b = pair
    assert a.call("VM.migrate", TO_B) is True
    assert (a.status(), b.status()) == ("Migration Source", "Migration Destination")
    assert a.call("Host.getStats")["vmMigrating"] == 1
    assert code_of(a, "VM.migrate", TO_B) == ErrorCode.MIGRATION_IN_PROGRESS
    a.pass_time(0.3)
    assert (a.status(), b.status()) == ("Down", "Up")
    (down,) = a.call("VM.getStats", [VM])
    assert (down["exitCode"], down["exitReason"]) == (0, 4)
    assert kinds(a)[-1] == "vm_stopped"
    assert kinds(b) == ["vm_incoming", "vm_started", "vm_moved"]
    (vm,) = replay(b.records).host(1).vms.values()
    assert vm.stats() == b.machine.find(VM).stats()


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"dst": "nowhere"}, ErrorCode.NO_PEER),
        ({"dst": "a"}, ErrorCode.NO_PEER),
        ({}, ErrorCode.MISSING_PARAMETER),
        ("b", ErrorCode.MISSING_PARAMETER),
    ],
)
def test_a_migration_to_nowhere_is_refused(pair, params, code):
    a, _ = pair
    assert code_of(a, "VM.migrate", {"vmID": VM, "params": params}) == code
    assert a.status() == "Up"


def test_a_vm_that_is_there_already_or_down_here_does_not_move(pair):
    a, b = pair
    b.call("VM.create", CREATE)
    assert code_of(a, "VM.migrate", TO_B) == ErrorCode.VM_EXISTS
    assert a.status() == "Up"
    a.call("VM.shutdown", [VM])
    assert code_of(a, "VM.migrate", TO_B) == ErrorCode.MIGRATION_OPERATION
    a.pass_time(5)
    assert code_of(a, "VM.migrate", TO_B) == ErrorCode.VM_DOWN


def test_a_destination_that_loses_power_leaves_the_vm_at_its_source(pair):
    a, b = pair
    a.call("VM.migrate", TO_B)
    b.machine.lose_vms()
    a.pass_time(1)
    assert (a.status(), b.status()) == ("Up", None)
    assert "vm_started" not in kinds(b)


@pytest.mark.parametrize("how", ["destroyed", "lost"])
def test_a_vm_that_ends_at_its_source_does_not_arrive(pair, how):
    a, b = pair
    a.call("VM.migrate", TO_B)
    if how == "destroyed":
        a.call("VM.destroy", [VM])
    else:
        a.machine.lose_vms()
    a.pass_time(1)
    assert (a.status(), b.status()) == (None, None)
    assert kinds(b) == ["vm_incoming", "vm_forgotten"]
    assert replay(b.records).host(1).vms == {}


def test_a_migration_does_not_outlive_the_process_of_its_hosts(pair):
    a, b = pair
    a.call("VM.migrate", TO_B)
    for world in pair:
        world.timers.clear()
        world.machine = world.boot()
        world.machine.restore(replay(world.records).host(1).vms.values())
    assert (a.status(), b.status()) == ("Up", None)


def test_a_migration_that_is_cancelled_leaves_the_vm_at_its_source(pair):
    a, b = pair
    assert code_of(a, "VM.migrateCancel", {"vmID": VM}) == ErrorCode.NOT_MIGRATING
    a.call("VM.migrate", TO_B)
    a.pass_time(0.1)
    assert a.call("VM.migrateCancel", {"vmID": VM}) is True
    assert (a.status(), b.status()) == ("Up", None)
    assert kinds(b) == ["vm_incoming", "vm_forgotten"]
    a.call("VM.migrate", TO_B)
    a.pass_time(0.25)
    assert a.status() == "Migration Source", "the first one's time is over, not the second one's"
    a.pass_time(0.1)
    assert (a.status(), b.status()) == ("Down", "Up")
    assert code_of(a, "VM.migrateCancel", {"vmID": VM}) == ErrorCode.VM_DOWN
