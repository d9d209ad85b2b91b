"""Live migration between two simulated hosts, as VDSM does it: the source pushes, nobody waits.

The VM is listed on both hosts meanwhile, as *Migration Source* and *Migration Destination*, and
runs on the source. Then, in one instant, it is down there with the reason *migrated* and runs here.
What goes wrong at either end leaves it on the source, and so does a cancellation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from engine_pg.hosts.vdsm.constants import ErrorCode, ExitReason
from engine_pg.simulator.answers import CallFailed
from engine_pg.simulator.machine import Machine, check_unknown, running
from engine_pg.simulator.vm import INCOMING, OUTGOING, Exit, Status, Vm

_MOVABLE: Final[tuple[Status, ...]] = ("PoweringUp", "Up", "Paused")


@dataclass(eq=False, slots=True)
class Migration:
    """One VM on its way."""

    source: Machine
    vm: Vm
    destination: Machine
    incoming: Vm
    was: Status
    over: bool = False

    def cancel(self) -> None:
        """Leave the VM where it is."""
        self.end(cancelled=True)

    def end(self, *, cancelled: bool = False) -> None:
        """Hand the VM over, or leave it where it is; once."""
        if self.over:
            return
        self.over = True
        there = any(vm is self.incoming for vm in self.destination.vms)
        here = any(vm is self.vm for vm in self.source.vms) and self.vm.status == OUTGOING
        if here and there and self.incoming.running and not cancelled:
            self.source.stop(self.vm, Exit.of(ExitReason.MIGRATED))
            self.incoming.status = self.was
            self.destination.admit(
                self.incoming, "vm_started", paused=self.incoming.paused, migrated=True
            )
            self.destination.move(self.incoming, self.was)
            return
        if here:
            self.source.move(self.vm, self.was)
        if there:
            self.destination.forget(self.incoming)


def migrate(source: Machine, vm_id: str, address: str) -> None:
    """Begin to move a VM to the host at an address."""
    vm = running(source, vm_id, if_down=ErrorCode.VM_DOWN)
    if vm.status == OUTGOING:
        raise CallFailed(ErrorCode.MIGRATION_IN_PROGRESS, "Migration is already in progress")
    destination = source.peers(address)
    if destination is None or destination is source:
        raise CallFailed(ErrorCode.NO_PEER, "Could not connect to peer VDS")
    if vm.status not in _MOVABLE:
        raise CallFailed(ErrorCode.MIGRATION_OPERATION, f"The VM is {vm.status}")
    was = vm.status
    check_unknown(destination, vm_id)
    incoming = Vm(vm.domain, vm.xml, INCOMING, paused=vm.paused)
    destination.admit(incoming, "vm_incoming")
    source.move(vm, OUTGOING)
    migration = Migration(source, vm, destination, incoming, was)
    source.leaving[vm_id] = migration.cancel
    source.after(source.spec.timing.migration_s, migration.end)


def cancel(source: Machine, vm_id: str) -> None:
    """Keep a VM that is on its way."""
    if running(source, vm_id, if_down=ErrorCode.VM_DOWN).status != OUTGOING:
        raise CallFailed(ErrorCode.NOT_MIGRATING, "Migration not in progress")
    source.leaving[vm_id]()
