"""Calls to one VDSM and their answers, matched by id over one connection.

Does not promise: that a call without an answer did not run, or that it will not run later.
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self, cast
from uuid import uuid4

from engine_pg.errors import EngineError, HostBusy, HostUnreachable, OutcomeUnknown
from engine_pg.hosts.vdsm.constants import CORRELATION_HEADER, ENGINE_FENCE, EVENTS, REQUESTS
from engine_pg.hosts.vdsm.faults import fault
from engine_pg.hosts.vdsm.stomp import StompConnection

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from ssl import SSLContext

    from engine_pg.hosts.driver import OpCtx
    from engine_pg.names import Names

MAX_IN_FLIGHT: Final = 256
MAX_CORRELATION_CHARS: Final = 255

log = logging.getLogger(__name__)


class RpcConnection:
    """One connection with a reply queue of its own; `on_lost` is called once, at its end."""

    def __init__(
        self, on_event: Callable[[str, object], None], on_lost: Callable[[str], None]
    ) -> None:
        self._on_event = on_event
        self._on_lost = on_lost
        self._reply_queue = f"jms.queue.engine.{uuid4()}"
        self._waiting: dict[object, asyncio.Future[dict[str, object] | None]] = {}
        self._lost_because: str | None = None
        self._stomp = StompConnection(self._take, self._lose)

    @classmethod
    async def open(
        cls,
        address: str,
        port: int,
        *,
        names: Names,
        ssl: SSLContext | None,
        heartbeat_s: float,
        on_event: Callable[[str, object], None],
        on_lost: Callable[[str], None],
    ) -> Self:
        """Connect, greet and subscribe; any failure to do so is `HostUnreachable`."""
        rpc = cls(on_event, on_lost)
        try:
            await rpc._reach(await names.addresses(address), address, port, ssl)
        except (OSError, ValueError, OverflowError) as error:
            raise HostUnreachable(f"{address}:{port}: {error}") from error
        try:
            await rpc._stomp.greet(heartbeat_s)
            rpc._subscribe(rpc._reply_queue)
            rpc._subscribe(EVENTS)
        except BaseException:
            rpc.abort("the connection attempt ended")
            raise
        return rpc

    async def _reach(
        self, addresses: Sequence[str], name: str, port: int, ssl: SSLContext | None
    ) -> None:
        """Connect to the first address that answers; its certificate must be the name's."""
        loop = asyncio.get_running_loop()
        server = name if ssl else None
        *others, last = addresses or [name]
        for address in others:
            with suppress(OSError):
                await loop.create_connection(
                    lambda: self._stomp, address, port, ssl=ssl, server_hostname=server
                )
                return
        await loop.create_connection(
            lambda: self._stomp, last, port, ssl=ssl, server_hostname=server
        )

    async def call(
        self, method: str, params: Mapping[str, object], ctx: OpCtx, *, changes: bool
    ) -> object:
        """Send a request and return its result; `changes` says what a missing answer means."""
        if ctx.timeout_s <= 0:
            raise HostUnreachable(f"{method}: no time left to ask")
        if len(self._waiting) >= MAX_IN_FLIGHT:
            raise HostBusy(f"{method}: {MAX_IN_FLIGHT} calls wait for an answer already")
        call_id = str(uuid4())
        self._send(call_id, method, params, ctx)
        answered = asyncio.get_running_loop().create_future()
        self._waiting[call_id] = answered
        try:
            async with asyncio.timeout(ctx.timeout_s):
                answer = await answered
        except TimeoutError:
            reason = f"no answer within {ctx.timeout_s} s"
            raise _no_answer(method, reason, changes=changes) from None
        finally:
            del self._waiting[call_id]
        if answer is None:
            raise _no_answer(method, self._lost_because or "", changes=changes)
        return _result(method, answer, changes=changes)

    def abort(self, reason: str) -> None:
        """Close at once; pending calls end without an answer."""
        self._stomp.abort(reason)

    async def close(self) -> None:
        """Close at once, and return when everything has ended."""
        self.abort("closed by the engine")
        await self._stomp.gone()

    @property
    def lost(self) -> bool:
        """Whether the connection has ended."""
        return self._lost_because is not None

    def _subscribe(self, destination: str) -> None:
        headers = {"id": str(uuid4()), "destination": destination, "ack": "auto"}
        self._stomp.send("SUBSCRIBE", headers)

    def _send(self, call_id: str, method: str, params: Mapping[str, object], ctx: OpCtx) -> None:
        fence = [{"key": h.key, "mode": h.mode, "token": h.token} for h in ctx.held]
        request = {
            "jsonrpc": "2.0",
            "method": method,
            "params": {**params, ENGINE_FENCE: fence} if fence else params,
            "id": call_id,
        }
        headers = {
            "destination": REQUESTS,
            "reply-to": self._reply_queue,
            "content-type": "application/json",
        }
        if ctx.correlation_id:
            headers[CORRELATION_HEADER] = ctx.correlation_id[:MAX_CORRELATION_CHARS]
        self._stomp.send("SEND", headers, json.dumps(request, separators=(",", ":")).encode())

    def _take(self, body: bytes) -> None:
        """Take a message: an event, or an answer that somebody may still wait for."""
        try:
            message = json.loads(body)
        except (ValueError, RecursionError) as error:
            log.warning("a host sent no JSON: %s", error)
            return
        if not isinstance(message, dict):
            log.warning("a host sent %.100r instead of a message", message)
            return
        record = cast("dict[str, object]", message)
        method, call_id = record.get("method"), record.get("id")
        if isinstance(method, str):
            self._on_event(method, record.get("params"))
        elif isinstance(call_id, str):
            answered = self._waiting.get(call_id)
            if answered is not None and not answered.done():
                answered.set_result(record)

    def _lose(self, reason: str) -> None:
        self._lost_because = reason
        for answered in self._waiting.values():
            if not answered.done():
                answered.set_result(None)
        self._on_lost(reason)


def _no_answer(method: str, reason: str, *, changes: bool) -> EngineError:
    kind = OutcomeUnknown if changes else HostUnreachable  # nothing depends on a lost read
    return kind(f"{method}: {reason}")


def _result(method: str, answer: dict[str, object], *, changes: bool) -> object:
    error = answer.get("error")
    if error is None and "result" in answer:
        return answer["result"]
    if isinstance(error, dict):
        refusal = cast("dict[str, object]", error)
        raise fault(method, refusal.get("code"), refusal.get("message", ""))
    kind = OutcomeUnknown if changes else EngineError
    raise kind(f"{method}: the host's answer makes no sense")
