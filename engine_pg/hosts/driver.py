"""`HostDriver`: what every host, whatever its protocol, can be asked.

Accepted is not done: `create_vm` and `shutdown_vm` return when the host has taken the call; the
end is seen in `list_vms` or an event. Events are hints and may be lost; after (re)connecting the
first one is `Resync`, and the caller lists again. A change whose answer is lost raises
`OutcomeUnknown`, and is settled by reading the host, never by a blind repetition.

Does not promise: a host with `Traits.fencing == "none"` runs a late call of a stale holder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

VmState = Literal[
    "wait_for_launch", "powering_up", "up", "paused", "powering_down", "reboot_in_progress",
    "migrating", "saving_state", "restoring_state", "down", "not_responding", "unknown",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class HeldKey:
    """One grant that a host call rests on: key text (`vm/<id>`), mode, fencing token."""

    key: str
    mode: Literal["exclusive", "shared"]
    token: int


@dataclass(frozen=True, slots=True)
class OpCtx:
    """What travels with each call: identity, right, patience (seconds) and correlation id."""

    op_id: UUID
    held: tuple[HeldKey, ...] = ()
    timeout_s: float = 10.0
    correlation_id: str = ""


@dataclass(frozen=True, slots=True)
class Traits:
    """What a host enforces and can do; `fencing="all"` means it checks tokens on every verb."""

    fencing: Literal["none", "all"] = "none"
    migration: bool = False
    tombstones: bool = True


@dataclass(frozen=True, slots=True)
class HostIdentity:
    """Who answered: hardware uuid and the id of its current boot.

    `highest_token`: of all that it has accepted; 0 of a host that checks none.
    """

    host_uuid: UUID
    boot_id: str
    traits: Traits
    highest_token: int = 0


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the machine is: processors, memory (bytes), software versions."""

    identity: HostIdentity
    cpu_cores: int
    cpu_threads: int
    cpu_sockets: int
    cpu_model: str
    memory_bytes: int
    version: str


@dataclass(frozen=True, slots=True)
class HostStats:
    """What the machine does now: load in percent, memory in bytes, number of VMs."""

    cpu_percent: float
    memory_free_bytes: int
    vm_active: int
    vm_count: int


@dataclass(frozen=True, slots=True)
class VmReport:
    """One VM as its host tells it; `exit_reason` is set when it is down (VDSM's numbers)."""

    vm_id: UUID
    state: VmState
    status_time: int
    exit_code: int | None = None
    exit_reason: int | None = None
    exit_message: str = ""


@dataclass(frozen=True, slots=True)
class Resync:
    """Events before this one may be lost: list again."""


@dataclass(frozen=True, slots=True)
class VmChanged:
    """A VM changed on the host."""

    report: VmReport


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection ended; no further event follows."""

    reason: str = ""


HostEvent = Resync | VmChanged | Disconnected


class VmDriver(Protocol):
    """What a host is asked about VMs; errors as of `HostDriver`."""

    async def list_vms(self, ctx: OpCtx) -> list[VmReport]:
        """List every VM the host knows, stopped ones that nobody has forgotten yet included.

        Carries the caller's tokens too, and so raises the gate before the caller acts.
        """
        ...

    async def create_vm(self, ctx: OpCtx, vm_id: UUID, xml: str) -> VmReport:
        """Start a VM from its libvirt domain XML."""
        ...

    async def destroy_vm(self, ctx: OpCtx, vm_id: UUID) -> None:
        """Stop a VM at once and forget it."""
        ...

    async def shutdown_vm(self, ctx: OpCtx, vm_id: UUID, delay_s: int = 0) -> None:
        """Ask the guest to shut down."""
        ...

    async def migrate_vm(self, ctx: OpCtx, vm_id: UUID, destination: str) -> None:
        """Begin to move a running VM to the host at an address (`name:port`), without a pause.

        Until it is over both hosts list it as `migrating`; then this one lists it as `down` with
        exit reason 4 (or no more), or it runs here as before.
        """
        ...

    async def cancel_migration(self, ctx: OpCtx, vm_id: UUID) -> None:
        """Ask the source to keep a VM that it is moving; what came of it `list_vms` tells.

        Raises `Conflict` when the VM is not on its way (any more).
        """
        ...


class HostDriver(VmDriver, Protocol):
    """One connection to one host.

    Errors of every call: `NotFound` (no such VM), `Conflict` (VM exists, wrong state), `HostBusy`
    (queue full, recovering), `StaleToken` (the host knows a higher token), `HostUnreachable` (not
    connected, nothing was sent; or a read without an answer), `OutcomeUnknown` (a change was sent,
    and no answer came within `timeout_s`, or none that can be understood, or the connection
    ended), `TooLarge` (the request is over the host's limit, nothing was sent), `EngineError` for
    the rest. A cancelled call leaves the connection usable; what it asked for may still happen.
    """

    @property
    def traits(self) -> Traits:
        """What the host enforces; known after `connect`."""
        ...

    async def connect(self, ctx: OpCtx) -> HostIdentity:
        """Open the connection and learn who answers."""
        ...

    async def ping(self, ctx: OpCtx) -> None:
        """Ask for a sign of life."""
        ...

    async def capabilities(self, ctx: OpCtx) -> Capabilities:
        """Read what the machine is."""
        ...

    async def stats(self, ctx: OpCtx) -> HostStats:
        """Read what the machine does now."""
        ...

    def events(self) -> AsyncIterator[HostEvent]:
        """Iterate over events from now on, `Resync` first; ends after `Disconnected`."""
        ...

    async def close(self) -> None:
        """Close the connection; pending changes raise `OutcomeUnknown`, reads `HostUnreachable`."""
        ...
