"""A driver that begins no change of a host past the member's lease, however long it waited."""

from __future__ import annotations

from uuid import UUID

from engine_pg.cluster.trust import Trust
from engine_pg.hosts.driver import Capabilities, HostDriver, OpCtx, Traits, VmReport


class CheckedDriver:
    """What a command may ask of a host; each call that changes it checks the lease first."""

    def __init__(self, driver: HostDriver, trust: Trust) -> None:
        self._driver = driver
        self._trust = trust

    @property
    def traits(self) -> Traits:
        """What the host enforces."""
        return self._driver.traits

    async def capabilities(self, ctx: OpCtx) -> Capabilities:
        """Read what the machine is."""
        return await self._driver.capabilities(ctx)

    async def list_vms(self, ctx: OpCtx) -> list[VmReport]:
        """List every VM that the host knows."""
        return await self._driver.list_vms(ctx)

    async def create_vm(self, ctx: OpCtx, vm_id: UUID, xml: str) -> VmReport:
        """Start a VM."""
        self._trust.check()
        return await self._driver.create_vm(ctx, vm_id, xml)

    async def destroy_vm(self, ctx: OpCtx, vm_id: UUID) -> None:
        """Stop a VM at once and forget it."""
        self._trust.check()
        await self._driver.destroy_vm(ctx, vm_id)

    async def shutdown_vm(self, ctx: OpCtx, vm_id: UUID, delay_s: int = 0) -> None:
        """Ask the guest to shut down."""
        self._trust.check()
        await self._driver.shutdown_vm(ctx, vm_id, delay_s)

    async def migrate_vm(self, ctx: OpCtx, vm_id: UUID, destination: str) -> None:
        """Begin to move a VM to another host."""
        self._trust.check()
        await self._driver.migrate_vm(ctx, vm_id, destination)

    async def cancel_migration(self, ctx: OpCtx, vm_id: UUID) -> None:
        """Ask the source to keep a VM that it is moving."""
        self._trust.check()
        await self._driver.cancel_migration(ctx, vm_id)
