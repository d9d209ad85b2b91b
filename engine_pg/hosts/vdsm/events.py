"""VDSM's notifications, fanned out to any number of readers, none of whom can hold up another.

Does not promise: every event; a reader that falls behind gets a `Resync` for what it missed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Final, Self
from weakref import WeakSet

from engine_pg.errors import EngineError
from engine_pg.hosts.driver import Disconnected, HostEvent, Resync, VmChanged
from engine_pg.hosts.vdsm import replies

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine_pg.hosts.driver import VmReport

MAX_UNREAD_EVENTS: Final = 1000

log = logging.getLogger(__name__)


class EventStream:
    """One reader's events, `Resync` first and `Disconnected` last."""

    def __init__(self) -> None:
        self._unread: deque[HostEvent] = deque([Resync()])
        self._arrived = asyncio.Event()
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> HostEvent:
        while not self._unread:
            if self._ended:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        return self._unread.popleft()

    def put(self, event: HostEvent) -> None:
        """Add an event; a full stream forgets all and says so."""
        if len(self._unread) >= MAX_UNREAD_EVENTS:
            self._unread = deque([Resync()])
        elif not (isinstance(event, Resync) and Resync() in self._unread):
            self._unread.append(event)
        self._arrived.set()

    def end(self, reason: str) -> None:
        """Let the reader finish after what is there."""
        self._unread.append(Disconnected(reason))
        self._ended = True
        self._arrived.set()


class Broadcast:
    """The streams of one connection; a stream that nobody reads any more vanishes."""

    def __init__(self) -> None:
        self._streams: WeakSet[EventStream] = WeakSet()
        self._ended_because: str | None = None

    def subscribe(self) -> EventStream:
        """Return a stream of the events from now on."""
        stream = EventStream()
        if self._ended_because is not None:
            stream.end(self._ended_because)
        self._streams.add(stream)
        return stream

    def publish(self, method: str, params: object) -> None:
        """Pass a notification on to every stream."""
        for event in _heard(method, params):
            for stream in self._streams:
                stream.put(event)

    def end(self, reason: str) -> None:
        """End every stream, later ones too."""
        self._ended_because = reason
        for stream in self._streams:
            stream.end(reason)


def _heard(method: str, params: object) -> Iterator[HostEvent]:
    """Read a notification; one about VMs that makes no sense is a reason to list them again."""
    if not method.startswith("|virt|VM_status|"):
        return
    try:
        record = replies.as_record(params)
        for vm_id, said in record.items():
            if vm_id != "notify_time":
                yield VmChanged(_report(vm_id, replies.as_record(said), record))
    except EngineError as error:
        log.warning("an event makes no sense: %s", error)
        yield Resync()


def _report(vm_id: str, said: replies.Record, event: replies.Record) -> VmReport:
    if "status" not in said:
        raise EngineError(f"no status of VM {vm_id}")
    now: replies.Record = {"statusTime": event.get("notify_time", 0), **said, "vmId": vm_id}
    return replies.vm_report(now)
