"""One STOMP connection: greeting, heart-beats both ways, and the moment it is lost.

A plain `asyncio.Protocol`: whatever arrives is handled on the spot, so there is no reader that
could die unseen, and whether a request was handed to the network is known when `send` returns.

Does not promise: that what was sent arrives; only an answer tells.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from typing import TYPE_CHECKING, Final, cast

from typing_extensions import override

from engine_pg.errors import EngineError, HostBusy, HostUnreachable, TooLarge
from engine_pg.hosts.vdsm.frames import HEARTBEAT, Frame, Parser, encode

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_REQUEST_BYTES: Final = 1024 * 1024
"""VDSM's parsing is quadratic: 1 MiB costs it 0.3 s, 8 MiB would cost 19 s."""

MAX_UNSENT_BYTES: Final = 4 * MAX_REQUEST_BYTES
BEATS_PER_INTERVAL: Final = 3  # VDSM drops a client that is late by nothing
SILENT_INTERVALS: Final = 2  # the host gets one interval of grace
CHECKS_PER_INTERVAL: Final = 2

_HEARTBEAT: Final = re.compile(r"([0-9]{1,9}),([0-9]{1,9})")

log = logging.getLogger(__name__)


class StompConnection(asyncio.Protocol):
    """Frames in and out of one transport; `on_lost` is called exactly once."""

    def __init__(self, on_message: Callable[[bytes], None], on_lost: Callable[[str], None]) -> None:
        self._on_message = on_message
        self._on_lost = on_lost
        self._parser = Parser()
        self._transport: asyncio.Transport | None = None
        loop = asyncio.get_running_loop()
        self._greeting: asyncio.Future[Frame | None] = loop.create_future()
        self._gone: asyncio.Future[None] = loop.create_future()
        self._reason = ""
        self._silent_checks = 0
        self._timers: list[asyncio.TimerHandle] = []

    async def greet(self, heartbeat_s: float) -> None:
        """Exchange CONNECT and CONNECTED, and start the heart-beats that were agreed on."""
        beat = round(heartbeat_s * 1000)
        self._give_up_after(beat)
        self.send(
            "CONNECT",
            {"accept-version": "1.2", "host": "vdsm", "heart-beat": f"{beat},{beat}"},
        )
        answer = await self._greeting
        if answer is None:
            raise HostUnreachable(f"the host closed the connection: {self._reason}")
        if answer.command != "CONNECTED":
            raise HostUnreachable(f"the host answered {_summary(answer)}")
        agreed = _HEARTBEAT.fullmatch(answer.headers.get("heart-beat", ""))
        if agreed is not None:
            self._start_heartbeats(int(agreed[1]) / 1000, int(agreed[2]) / 1000)

    def send(self, command: str, headers: dict[str, str], body: bytes = b"") -> None:
        """Hand a frame to the network; if this raises, nothing was sent."""
        data = encode(Frame(command, headers, body))
        if len(data) > MAX_REQUEST_BYTES:
            raise TooLarge(f"a request of {len(data)} bytes exceeds {MAX_REQUEST_BYTES}")
        if self._transport is None or self._transport.is_closing():
            raise HostUnreachable(f"not connected: {self._reason}")
        if self._transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            raise HostBusy("the host does not take what was sent before")
        self._transport.write(data)

    def abort(self, reason: str) -> None:
        """Close at once, without waiting for the other side."""
        self._reason = self._reason or reason
        if self._transport is not None:
            self._transport.abort()

    async def gone(self) -> None:
        """Wait until the connection is lost."""
        await asyncio.shield(self._gone)

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast("asyncio.Transport", transport)

    @override
    def data_received(self, data: bytes) -> None:
        """Handle every frame that is complete now."""
        self._silent_checks = 0
        try:
            self._parser.feed(data)
            while (frame := self._parser.next_frame()) is not None:
                self._handle(frame)
        except EngineError as error:
            log.warning("closing the connection to a host: %s", error)
            self.abort(str(error))

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the heart-beats and tell everybody who waits."""
        self._reason = self._reason or str(exc or "closed by the host")
        for timer in self._timers:
            timer.cancel()
        if not self._greeting.done():
            self._greeting.set_result(None)
        self._gone.set_result(None)
        self._on_lost(self._reason)

    def _give_up_after(self, unacknowledged_ms: int) -> None:
        """Have the kernel drop what finds no way: else a call arrives when nobody expects it."""
        sock: socket.socket | None = self._transport and self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unacknowledged_ms)

    def _handle(self, frame: Frame) -> None:
        if frame.command == "MESSAGE":
            self._on_message(frame.body)
        elif not self._greeting.done():
            self._greeting.set_result(frame)
        else:  # VDSM keeps the connection open after an ERROR; a call it concerns will time out
            log.warning("a host sent %s", _summary(frame))

    def _start_heartbeats(self, theirs_s: float, ours_s: float) -> None:
        if ours_s:
            self._every(ours_s / BEATS_PER_INTERVAL, self._beat)
        if theirs_s:
            self._every(theirs_s / CHECKS_PER_INTERVAL, self._check_silence)

    def _every(self, interval_s: float, action: Callable[[], None]) -> None:
        slot = len(self._timers)
        loop = asyncio.get_running_loop()

        def tick() -> None:
            self._timers[slot] = loop.call_later(interval_s, tick)
            action()

        self._timers.append(loop.call_later(interval_s, tick))

    def _beat(self) -> None:
        if self._transport is not None and not self._transport.get_write_buffer_size():
            self._transport.write(HEARTBEAT)

    def _check_silence(self) -> None:
        """Count instead of measuring: after a pause of our own process one check is missing."""
        self._silent_checks += 1
        if self._silent_checks > SILENT_INTERVALS * CHECKS_PER_INTERVAL:
            self.abort("the host fell silent")


def _summary(frame: Frame) -> str:
    text = frame.headers.get("message") or frame.body[:200].decode(errors="replace")
    return f"{frame.command[:20]}: {text[:200]}"
