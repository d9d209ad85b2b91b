"""One client's connection to a simulated host: STOMP's commands and heart-beats, VDSM's way.

It differs from the specification in two ways: an ERROR leaves the connection open, and a DISCONNECT
without a receipt closes it at once, while one with a receipt does not close it at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from engine_pg.clock import boottime
from engine_pg.hosts.vdsm.constants import CORRELATION_HEADER, IRS_REQUESTS, REQUESTS
from engine_pg.simulator.broker import Broker, Subscription
from engine_pg.simulator.frames import HEART_BEAT, BrokenFrame, Decoder, Frame

DETECTION_S: Final = 10.0
MAX_SUBSCRIPTIONS: Final = 64
MAX_UNREAD: Final = 64 * 1024 * 1024
_OPENINGS: Final = (
    b"CONNECT", b"SEND", b"SUBSCRIBE", b"UNSUBSCRIBE", b"DISCONNECT", b"BEGIN", b"COMMIT", b"ABORT",
    b"ACK", b"NACK",
)  # fmt: skip
_DETECTED_IN: Final = max(len(opening) for opening in _OPENINGS)


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose connection it is: its number in the journal, and the other end."""

    connection: int
    peer: str


@dataclass(frozen=True, slots=True)
class Incoming:
    """One message to a request queue, and whence it came."""

    body: bytes
    reply_to: str | None
    correlation_id: str
    origin: Origin


class Connection:
    """Serves one client until either side ends it."""

    def __init__(
        self,
        origin: Origin,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        broker: Broker,
        receive: Callable[[Incoming], None],
    ) -> None:
        self.origin = origin
        self._reader, self._writer = streams
        self._broker = broker
        self._receive = receive
        self._decoder = Decoder()
        self._subscriptions: dict[str, Subscription] = {}
        self._expect_s: float | None = None
        self._beat_s: float | None = None
        self._beat: asyncio.TimerHandle | None = None
        self._sent_at = boottime()
        self._commands: Final[dict[str, Callable[[Frame], None]]] = {
            "CONNECT": self._on_connect,
            "SUBSCRIBE": self._on_subscribe,
            "UNSUBSCRIBE": self._on_unsubscribe,
            "SEND": self._on_send,
            "DISCONNECT": self._on_disconnect,
        }

    async def serve(self) -> str:
        """Read until the connection ends, and return why it did."""
        try:
            if not await self._is_stomp():
                return "not STOMP"
            return await self._read()
        except TimeoutError:
            return "silent"
        except BrokenFrame as broken:
            return str(broken)
        except OSError as error:
            return f"lost: {error}"
        finally:
            self._end()

    def send(self, frame: Frame) -> None:
        """Send a frame; a client that reads nothing is dropped."""
        self._write(frame.encode())

    def drop(self) -> None:
        """Cut the connection."""
        self._writer.transport.abort()

    async def _is_stomp(self) -> bool:
        opening = b""
        async with asyncio.timeout(DETECTION_S):
            while len(opening) < _DETECTED_IN:
                data = await self._reader.read(_DETECTED_IN - len(opening))
                if not data:
                    return False
                opening += data
        if not opening.startswith(_OPENINGS):
            return False
        self._take(opening)
        return True

    async def _read(self) -> str:
        while not self._writer.is_closing():
            async with asyncio.timeout(self._expect_s):
                data = await self._reader.read(64 * 1024)
            if not data:
                return "closed by the client"
            self._take(data)
        return "closed"

    def _take(self, data: bytes) -> None:
        for frame in self._decoder.feed(data):
            if self._writer.is_closing():  # what a crashed host had not read yet is lost
                return
            command = self._commands.get(frame.command)
            if command is None:
                raise BrokenFrame(f"Unknown command {frame.command[:20]!r}.")
            command(frame)

    def _end(self) -> None:
        for subscription in self._subscriptions.values():
            self._broker.unsubscribe(subscription)
        self._subscriptions.clear()
        if self._beat is not None:
            self._beat.cancel()
        self._writer.close()

    def _write(self, data: bytes) -> None:
        if self._writer.is_closing():
            return
        self._writer.write(data)
        self._sent_at = boottime()
        if self._writer.transport.get_write_buffer_size() > MAX_UNREAD:
            self.drop()

    def _on_connect(self, frame: Frame) -> None:
        if frame.headers.get("accept-version") != "1.2":
            self._error("Version unsupported")
            return
        client_sends, client_wants = _heart_beat(frame.headers.get("heart-beat", "0,0"))
        self._expect_s = client_sends / 1000 or None
        self._beat_s = client_wants / 1000 or None
        beats = f"{client_wants},{client_sends}"
        self.send(Frame("CONNECTED", {"version": "1.2", "heart-beat": beats}))
        self._plan_beat()

    def _plan_beat(self) -> None:
        if self._beat is not None:
            self._beat.cancel()
        if self._beat_s is not None and not self._writer.is_closing():
            idle_s = boottime() - self._sent_at
            loop = asyncio.get_running_loop()
            self._beat = loop.call_later(max(0.0, self._beat_s - idle_s), self._on_beat)

    def _on_beat(self) -> None:
        if self._beat_s is not None and boottime() - self._sent_at >= self._beat_s - 0.001:
            self._write(HEART_BEAT)
        self._plan_beat()

    def _on_subscribe(self, frame: Frame) -> None:
        destination, subscription_id = frame.headers.get("destination"), frame.headers.get("id")
        if not destination or not subscription_id:
            self._error("Missing destination or subscription id header")
        elif subscription_id in self._subscriptions:
            self._error("Subscription id already exists")
        elif len(self._subscriptions) >= MAX_SUBSCRIPTIONS:
            self._error("Too many subscriptions")
        else:
            subscription = Subscription(subscription_id, destination, self)
            self._subscriptions[subscription_id] = subscription
            self._broker.subscribe(subscription)

    def _on_unsubscribe(self, frame: Frame) -> None:
        subscription_id = frame.headers.get("id")
        if not subscription_id:
            self._error("Missing id header")
        elif (subscription := self._subscriptions.pop(subscription_id, None)) is not None:
            self._broker.unsubscribe(subscription)

    def _on_send(self, frame: Frame) -> None:
        destination = frame.headers.get("destination")
        if destination is None:
            raise BrokenFrame("A message has no destination.")
        hearers = self._broker.forward(frame, destination)
        if _is_request_queue(destination):
            correlation_id = frame.headers.get(CORRELATION_HEADER, "")
            reply_to = frame.headers.get("reply-to")
            self._receive(Incoming(frame.body, reply_to, correlation_id, self.origin))
        elif not hearers:
            self._error("Subscription not available")

    def _on_disconnect(self, frame: Frame) -> None:
        receipt = frame.headers.get("receipt")
        if receipt is None:
            self.drop()
        else:
            self.send(Frame("RECEIPT", {"receipt-id": receipt}))

    def _error(self, message: str) -> None:
        self.send(Frame("ERROR", {}, message.encode()))


def _is_request_queue(destination: str) -> bool:
    return any(
        destination == queue or destination.startswith(queue + ".")
        for queue in (REQUESTS, IRS_REQUESTS)
    )


def _heart_beat(text: str) -> tuple[int, int]:
    """Return what the client sends and wants, in ms; VDSM takes nonsense for 0."""
    sends, comma, wants = text.partition(",")
    if not comma:
        return 0, 0
    return _interval(sends), _interval(wants)


def _interval(text: str) -> int:
    stripped = text.strip()
    if not (stripped.isascii() and stripped.isdigit()) or len(stripped) > 9:
        return 0
    return max(1000, int(stripped)) if int(stripped) else 0
