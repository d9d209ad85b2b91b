"""The calls about VMs, in VDSM's words, on a connection that somebody else keeps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from engine_pg.errors import EngineError, OutcomeUnknown
from engine_pg.hosts.vdsm import replies

if TYPE_CHECKING:
    from uuid import UUID

    from engine_pg.hosts.driver import OpCtx, VmReport


class VdsmVms(ABC):
    """What a VDSM is asked about VMs."""

    @abstractmethod
    async def call(
        self, ctx: OpCtx, method: str, params: dict[str, object], *, changes: bool
    ) -> object:
        """Call a verb of the host."""

    async def list_vms(self, ctx: OpCtx) -> list[VmReport]:
        """List every VM the host knows, stopped ones that nobody has forgotten yet included."""
        return replies.vm_reports(await self.call(ctx, "Host.getAllVmStats", {}, changes=False))

    async def create_vm(self, ctx: OpCtx, vm_id: UUID, xml: str) -> VmReport:
        """Start a VM from its libvirt domain XML."""
        vm = {"vmId": str(vm_id), "xml": xml}
        accepted = await self._change(ctx, "VM.create", vmID=str(vm_id), vmParams=vm)
        try:
            return replies.vm_report(replies.as_record(accepted))
        except EngineError as error:
            raise OutcomeUnknown(f"VM.create: {error}") from error

    async def destroy_vm(self, ctx: OpCtx, vm_id: UUID) -> None:
        """Stop a VM at once and forget it."""
        await self._change(ctx, "VM.destroy", vmID=str(vm_id))

    async def shutdown_vm(self, ctx: OpCtx, vm_id: UUID, delay_s: int = 0) -> None:
        """Ask the guest to shut down."""
        delay = str(delay_s)  # the number 0 would mean VDSM's own default
        await self._change(ctx, "VM.shutdown", vmID=str(vm_id), delay=delay)

    async def migrate_vm(self, ctx: OpCtx, vm_id: UUID, destination: str) -> None:
        """Begin to move a running VM to the host at an address, without a pause."""
        params = {"dst": destination, "mode": "remote", "method": "online"}
        await self._change(ctx, "VM.migrate", vmID=str(vm_id), params=params)

    async def cancel_migration(self, ctx: OpCtx, vm_id: UUID) -> None:
        """Ask the source to keep a VM that it is moving."""
        await self._change(ctx, "VM.migrateCancel", vmID=str(vm_id))

    async def _change(self, ctx: OpCtx, method: str, **params: object) -> object:
        return await self.call(ctx, method, params, changes=True)
