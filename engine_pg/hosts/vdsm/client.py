"""`VdsmDriver`: a host that speaks VDSM's protocol.

Does not promise: a second try of anything; `connections` reopens, and commands look and decide.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from engine_pg.errors import Conflict, EngineError, HostUnreachable, OutcomeUnknown
from engine_pg.hosts.driver import Traits
from engine_pg.hosts.vdsm import replies
from engine_pg.hosts.vdsm.events import Broadcast
from engine_pg.hosts.vdsm.rpc import RpcConnection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from ssl import SSLContext
    from uuid import UUID

    from engine_pg.hosts.driver import (
        Capabilities,
        HostEvent,
        HostIdentity,
        HostStats,
        OpCtx,
        VmReport,
    )

NOT_CONNECTED: Final = "not connected"


class VdsmDriver:
    """One connection to one VDSM; after a loss `connect` opens a new one."""

    def __init__(
        self,
        address: str,
        port: int,
        *,
        ssl: SSLContext | None = None,
        connect_timeout_s: float = 10.0,
        heartbeat_s: float = 5.0,
    ) -> None:
        self._address = address
        self._port = port
        self._ssl = ssl
        self._connect_timeout_s = connect_timeout_s
        self._heartbeat_s = heartbeat_s
        self._connecting = asyncio.Lock()
        self._rpc: RpcConnection | None = None
        self._broadcast = Broadcast()
        self._broadcast.end(NOT_CONNECTED)
        self._traits = Traits()

    @property
    def traits(self) -> Traits:
        """What the host enforces; known after `connect`."""
        return self._traits

    async def connect(self, ctx: OpCtx) -> HostIdentity:
        """Open the connection and learn who answers."""
        patience_s = min(self._connect_timeout_s, ctx.timeout_s)
        try:
            async with asyncio.timeout(patience_s), self._connecting:
                return await self._connect(ctx)
        except TimeoutError:
            place = f"{self._address}:{self._port}"
            raise HostUnreachable(f"{place}: not connected within {patience_s} s") from None

    async def _connect(self, ctx: OpCtx) -> HostIdentity:
        if self._rpc is not None and not self._rpc.lost:
            raise Conflict(f"{self._address}:{self._port}: connected already")
        broadcast = Broadcast()
        rpc = await RpcConnection.open(
            self._address,
            self._port,
            ssl=self._ssl,
            heartbeat_s=self._heartbeat_s,
            on_event=broadcast.publish,
            on_lost=broadcast.end,
        )
        try:
            said = await rpc.call("Host.getCapabilities", {}, ctx, changes=False)
            identity = replies.identity(said)
        except BaseException:
            rpc.abort("the host did not say who it is")
            raise
        self._rpc, self._broadcast, self._traits = rpc, broadcast, identity.traits
        return identity

    async def ping(self, ctx: OpCtx) -> None:
        """Ask for a sign of life."""
        await self._read(ctx, "Host.ping2")

    async def capabilities(self, ctx: OpCtx) -> Capabilities:
        """Read what the machine is."""
        return replies.capabilities(await self._read(ctx, "Host.getCapabilities"))

    async def stats(self, ctx: OpCtx) -> HostStats:
        """Read what the machine does now."""
        return replies.stats(await self._read(ctx, "Host.getStats"))

    async def list_vms(self, ctx: OpCtx) -> list[VmReport]:
        """List every VM the host knows, stopped ones that nobody has forgotten yet included."""
        return replies.vm_reports(await self._read(ctx, "Host.getAllVmStats"))

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

    def events(self) -> AsyncIterator[HostEvent]:
        """Iterate over events from now on, `Resync` first; ends after `Disconnected`."""
        return self._broadcast.subscribe()

    async def close(self) -> None:
        """Close the connection; pending changes raise `OutcomeUnknown`, reads `HostUnreachable`."""
        if self._rpc is not None:
            await self._rpc.close()

    async def _read(self, ctx: OpCtx, method: str) -> object:
        return await self._connected().call(method, {}, ctx, changes=False)

    async def _change(self, ctx: OpCtx, method: str, **params: object) -> object:
        return await self._connected().call(method, params, ctx, changes=True)

    def _connected(self) -> RpcConnection:
        if self._rpc is None:
            raise HostUnreachable(f"{self._address}:{self._port}: {NOT_CONNECTED}")
        return self._rpc
