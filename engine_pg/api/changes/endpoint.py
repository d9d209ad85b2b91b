"""`GET /api/v1/changes`: one client, from its request until it leaves or the node does.

A client that takes nothing for a while is cut off, and one whose token ended as well: the ids that
it has seen are all that it needs to come again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from engine_pg.api.asked import Filters
from engine_pg.api.auth import identified
from engine_pg.api.changes import wire
from engine_pg.api.changes.stream import Stream, beginning
from engine_pg.api.services import Services
from engine_pg.clock import boottime
from engine_pg.cluster.feed import Cursor, Resync
from engine_pg.errors import EngineError, Invalid, Unauthorized
from engine_pg.supervisor import Background

log = logging.getLogger(__name__)

STALLED_S: Final = 30.0
"""A client that takes nothing for so long is cut off."""
_KNOWN_S: Final = 60.0
_HEADERS: Final = {"X-Accel-Buffering": "no"}  # a proxy that collects an answer would hold it back


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client wants: where to begin (None: now), which topics, whether to wait for more."""

    since: Cursor | None
    start: bool
    topics: Sequence[str]
    follow: bool


async def stream(request: Request) -> Response:
    """Answer with the changes, as they happen."""
    asked = _asked(request)
    if request.method == "HEAD":
        return Response(media_type=wire.MEDIA_TYPE)
    return EventStream(request, asked)


def _asked(request: Request) -> Asked:
    filters = Filters(request, "from", "follow", repeated="topic")
    topics = filters.texts("topic") or list(wire.TOPICS)
    for topic in topics:
        if topic not in wire.TOPICS:
            there = ", ".join(wire.TOPICS)
            raise Invalid(f"There is no topic {topic[:40]}; there are: {there}")
    since = request.headers.get("last-event-id") or filters.text("from") or "now"
    cursor = None if since in ("now", "start") else Cursor.parse(since)
    return Asked(cursor, since == "start", topics, filters.flag("follow", "true"))


class EventStream(Response):
    """The answer: it ends when the client leaves, or the node."""

    media_type = wire.MEDIA_TYPE

    def __init__(self, request: Request, asked: Asked) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._services: Services = request.app.state.services
        self._authorization = request.headers.get("authorization", "")
        self._asked = asked
        self._heard_at = self._known_at = boottime()

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the stream; raises what is wrong before the answer has begun."""
        tail = self._services.tail
        async with tail.listening(self._services.settings.now.streams_per_node):
            stream, greeting = await self._begun()
            head = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            await send(head)
            async with Background() as background:
                left = background.start(_left(receive), name="client of changes")
                pump = self._pump(stream, greeting, send)
                served = background.start(pump, name="stream of changes")
                await asyncio.wait([left, served], return_when=asyncio.FIRST_COMPLETED)

    async def _begun(self) -> tuple[Stream, bytes]:
        """Return the stream, and what it begins with."""
        asked, tail = self._asked, self._services.tail
        greeting = wire.greeting()
        position = asked.since
        if asked.start:
            position = await beginning(tail.feed, asked.topics)
        elif position is None:
            position = await tail.standing()
            greeting += wire.resync(position, "this is where the changes begin")
        return Stream(tail, position, asked.topics), greeting

    async def _pump(self, stream: Stream, greeting: bytes, send: Send) -> None:
        try:
            await self._send(send, greeting)
            reason = await (self._follow if self._asked.follow else self._rest)(stream, send)
            await self._send(send, wire.heartbeat(stream.position) + wire.farewell(reason))
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            log.info("a client of changes takes nothing and is cut off")

    async def _follow(self, stream: Stream, send: Send) -> str:
        """Tell what happens; return why that is over."""
        tail, settings = self._services.tail, self._services.settings
        while not tail.closed:
            quiet_s = settings.now.stream_heartbeat_s
            for piece in await stream.next(self._heard_at + quiet_s - boottime()):
                await self._send(send, piece)
            if not await self._is_known():
                return "the credentials are good no more"
            if boottime() - self._heard_at >= quiet_s:
                await self._send(send, wire.heartbeat(stream.position))
        return tail.closed

    async def _rest(self, stream: Stream, send: Send) -> str:
        """Tell what has happened; return why that is all."""
        more = True
        while more:
            try:
                more, pieces = await stream.rest()
            except Resync as told:
                more, pieces = False, [await stream.begin_anew(str(told))]
            for piece in pieces:
                await self._send(send, piece)
        return "that is all for now"

    async def _send(self, send: Send, content: bytes) -> None:
        async with asyncio.timeout(STALLED_S):
            await send({"type": "http.response.body", "body": content, "more_body": True})
        self._heard_at = boottime()

    async def _is_known(self) -> bool:
        """Ask now and then whether the client's credentials are still good."""
        if boottime() - self._known_at < _KNOWN_S:
            return True
        self._known_at = boottime()
        try:
            reading = await self._services.reads.take()
            await identified(self._services, reading, self._authorization)
        except Unauthorized:
            return False
        except EngineError as error:  # the database is away: nobody can be asked
            log.info("cannot look whether a client of changes is still known: %s", error)
        return True


async def _left(receive: Receive) -> None:
    """Return when the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
