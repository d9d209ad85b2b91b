"""`VdsmDriver`: a host that speaks VDSM's protocol.

Does not promise: a second try of anything; `connections` reopens, and commands look and decide.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from typing_extensions import override

from engine_pg.errors import Conflict, HostUnreachable
from engine_pg.hosts.driver import Traits
from engine_pg.hosts.vdsm import replies
from engine_pg.hosts.vdsm.events import Broadcast
from engine_pg.hosts.vdsm.rpc import RpcConnection
from engine_pg.hosts.vdsm.vms import VdsmVms
from engine_pg.names import Names

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from ssl import SSLContext

    from engine_pg.hosts.driver import (
        Capabilities,
        HostEvent,
        HostIdentity,
        HostStats,
        OpCtx,
    )

NOT_CONNECTED: Final = "not connected"


class VdsmDriver(VdsmVms):
    """One connection to one VDSM; after a loss `connect` opens a new one."""

    def __init__(
        self,
        address: str,
        port: int,
        *,
        names: Names | None = None,
        ssl: SSLContext | None = None,
        connect_timeout_s: float = 10.0,
        heartbeat_s: float = 5.0,
    ) -> None:
        self._address = address
        self._port = port
        self._names = names or Names()
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
            names=self._names,
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

    def events(self) -> AsyncIterator[HostEvent]:
        """Iterate over events from now on, `Resync` first; ends after `Disconnected`."""
        return self._broadcast.subscribe()

    async def close(self) -> None:
        """Close the connection; pending changes raise `OutcomeUnknown`, reads `HostUnreachable`."""
        if self._rpc is not None:
            await self._rpc.close()

    async def _read(self, ctx: OpCtx, method: str) -> object:
        return await self.call(ctx, method, {}, changes=False)

    @override
    async def call(
        self, ctx: OpCtx, method: str, params: dict[str, object], *, changes: bool
    ) -> object:
        """Call a verb of the host."""
        return await self._connected().call(method, params, ctx, changes=changes)

    def _connected(self) -> RpcConnection:
        if self._rpc is None:
            raise HostUnreachable(f"{self._address}:{self._port}: {NOT_CONNECTED}")
        return self._rpc
