"""The machine: the VMs of one simulated host and how they live.

A VM is `WaitForLaunch`, `PoweringUp`, `Up`; shutting down takes its time; what is down stays
listed, with the reason, until it is destroyed. Each change is in the journal before anybody hears
of it, and `restore` takes the VMs back from there: real hosts outlive whoever manages them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal, Protocol
from uuid import UUID

from engine_pg.clock import Clock, boottime
from engine_pg.hosts.vdsm.constants import ErrorCode, ExitReason
from engine_pg.simulator.answers import CallFailed, no_such_vm
from engine_pg.simulator.domain import Domain
from engine_pg.simulator.vm import INCOMING, OUTGOING, Exit, Status, Vm

EVENT_TIME_BASE: Final = 2**31 - 1  # older engines could not read smaller numbers


@dataclass(frozen=True, slots=True)
class Timing:
    """How long things take, in seconds; `work_s` is the time of a call that changes something."""

    launch_s: float = 0.1
    boot_s: float = 0.3
    shutdown_s: float = 0.3
    work_s: float = 0.01
    migration_s: float = 0.3


@dataclass(frozen=True, slots=True)
class Spec:
    """What a simulated host is, for all its life."""

    number: int
    uuid: UUID
    memory_mib: int = 64 * 1024
    cpus: int = 16
    fencing: Literal["all", "none"] = "all"
    timing: Timing = Timing()


@dataclass(frozen=True, slots=True)
class Boot:
    """One life of the machine between two reboots."""

    boot_id: str
    booted_at: float


class Observer(Protocol):
    """Who is told of each change: first the journal, then the subscribers of events."""

    def record(self, kind: str, **fields: object) -> object:
        """Write a record of this host."""
        ...

    def announce(self, vm: Vm) -> None:
        """Send an event about this VM."""
        ...


class Later(Protocol):
    """The part of an event loop that a life cycle needs."""

    def __call__(self, delay: float, callback: Callable[[], None], /) -> asyncio.TimerHandle:
        """Call back after some seconds."""
        ...


class Machine:
    """The VMs of one host."""

    def __init__(
        self, spec: Spec, boot: Boot, observer: Observer, later: Later, clock: Clock = boottime
    ) -> None:
        self.spec = spec
        self.boot = boot
        self._observer = observer
        self._later = later
        self._clock = clock
        self.after: Final = later
        self.peers: Callable[[str], Machine | None] = lambda _: None
        self.highest_token: Callable[[], int] = lambda: 0
        self.leaving: Final[dict[str, Callable[[], None]]] = {}  # last moves, to be cancelled
        self._vms: dict[str, Vm] = {}

    @property
    def vms(self) -> list[Vm]:
        """Return every VM that the host knows, tombstones too."""
        return list(self._vms.values())

    def event_time(self) -> int:
        """Return the host's time of events: milliseconds since it booted, from a fixed base."""
        return EVENT_TIME_BASE + int(max(0.0, self._clock() - self.boot.booted_at) * 1000)

    def find(self, vm_id: str) -> Vm:
        """Return a VM, tombstone or not."""
        vm = self._vms.get(vm_id)
        if vm is None:
            raise no_such_vm(vm_id)
        return vm

    def admit(self, vm: Vm, kind: str, **more: object) -> None:
        """List a VM, new or as it is now; `kind` says in the journal how it came."""
        vm.status_time = self.event_time()
        self._vms[vm.vm_id] = vm
        self._observer.record(kind, vm=vm.vm_id, time=vm.status_time, xml=vm.xml, **more)
        self._observer.announce(vm)
        self._live_on(vm)

    def forget(self, vm: Vm) -> None:
        """List a VM no more."""
        vm.cancel_timer()
        del self._vms[vm.vm_id]
        self._observer.record("vm_forgotten", vm=vm.vm_id)

    def stop(self, vm: Vm, end: Exit) -> None:
        """Make a VM a tombstone."""
        vm.cancel_timer()
        vm.exit, vm.status, vm.status_time = end, "Down", self.event_time()
        self._observer.record(
            "vm_stopped",
            vm=vm.vm_id,
            time=vm.status_time,
            exit_code=end.code,
            exit_reason=end.reason,
            exit_message=end.message,
        )
        self._observer.announce(vm)

    def move(self, vm: Vm, status: Status, *, delay_s: float = 0.0) -> None:
        """Put a running VM into a state; what follows by itself waits `delay_s` longer."""
        vm.status, vm.status_time = status, self.event_time()
        self._observer.record("vm_moved", vm=vm.vm_id, time=vm.status_time, status=status)
        self._observer.announce(vm)
        self._live_on(vm, delay_s)

    def lose_vms(self) -> None:
        """Lose every VM, as a host does that loses power."""
        for vm in self.vms:
            vm.cancel_timer()
            if vm.running:
                self._observer.record("vm_stopped", vm=vm.vm_id, time=self.event_time(), lost=True)
        self._vms.clear()

    def restore(self, vms: Iterable[Vm]) -> None:
        """Take back the VMs of an earlier process; each goes on with what it was about to do."""
        for vm in list(vms):
            self._vms[vm.vm_id] = vm
            if vm.status == INCOMING:  # a migration does not outlive its process
                self.forget(vm)
            elif vm.status == OUTGOING:
                self.move(vm, "Up")
            else:
                self._live_on(vm)

    def _live_on(self, vm: Vm, delay_s: float = 0.0) -> None:
        vm.cancel_timer()
        timing = self.spec.timing
        match vm.status:
            case "WaitForLaunch":
                self._soon(vm, timing.launch_s, lambda: self.move(vm, "PoweringUp"))
            case "PoweringUp":
                launched: Status = "Paused" if vm.paused else "Up"
                self._soon(vm, timing.boot_s, lambda: self.move(vm, launched))
            case "RebootInProgress":
                self._soon(vm, delay_s + timing.shutdown_s, lambda: self.move(vm, "Up"))
            case "PoweringDown":
                end = Exit.of(ExitReason.ADMIN_SHUTDOWN)
                self._soon(vm, delay_s + timing.shutdown_s, lambda: self.stop(vm, end))
            case "Up" | "Paused" | "Down" | "Migration Source" | "Migration Destination":
                pass

    def _soon(self, vm: Vm, delay_s: float, step: Callable[[], None]) -> None:
        vm.timer = self._later(delay_s, step)


def running(machine: Machine, vm_id: str, *, if_down: ErrorCode = ErrorCode.NO_SUCH_VM) -> Vm:
    """Return a VM that is not down."""
    vm = machine.find(vm_id)
    if not vm.running:
        raise CallFailed(if_down, f"Virtual machine is down: {vm_id}")
    return vm


def check_unknown(machine: Machine, vm_id: str) -> None:
    """Refuse a VM that the host knows; a tombstone is in the way too, as in VDSM."""
    if any(vm.vm_id == vm_id for vm in machine.vms):
        raise CallFailed(ErrorCode.VM_EXISTS, "Virtual machine already exists")


def create(machine: Machine, domain: Domain, xml: str, *, paused: bool) -> Vm:
    """Start a VM."""
    check_unknown(machine, domain.vm_id)
    vm = Vm(domain, xml, paused=paused)
    machine.admit(vm, "vm_started", paused=paused)
    return vm


def destroy(machine: Machine, vm_id: str) -> None:
    """Stop a VM at once and forget it."""
    vm = machine.find(vm_id)
    if vm.running:
        machine.stop(vm, Exit.of(ExitReason.ADMIN_SHUTDOWN))
    machine.forget(vm)
