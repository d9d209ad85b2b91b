"""A request that is sent again is done once, and answered as it was.

`Idempotency-Key` names a request; below oVirt's API so does a correlation id that the client chose,
together with the method, the path, the query and the body.
"""

from __future__ import annotations

import base64
import hashlib
import logging
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine_pg.api.accounts.tokens import Identity
from engine_pg.api.auth import IDENTITY, READING_METHODS
from engine_pg.api.edge import correlation
from engine_pg.api.edge.paths import API
from engine_pg.api.services import Services
from engine_pg.commands import keys
from engine_pg.commands.keys import Claimed, RequestKey
from engine_pg.db.tx import Record
from engine_pg.errors import EngineError, Invalid

log = logging.getLogger(__name__)

HEADER: Final = "idempotency-key"
REPLAYED: Final = "Idempotency-Replayed"
"""The header of an answer that was given before."""
_ONCE: Final = "engine.once"
_KEY_LIMIT: Final = 255
_KEPT: Final = ("content-type", "location")


@dataclass(slots=True)
class Named:
    """A request that its sender named; `settled`: its answer is the one for all repetitions."""

    claimed: Claimed
    settled: bool = True
    answer: list[bytes] = field(default_factory=list[bytes])


def named(scope: Scope) -> Named | None:
    """Return what is known of a request that its sender named."""
    return scope.get(_ONCE)


def unsettled(scope: Scope) -> None:
    """Let a repetition of the request be answered anew: more may be known then."""
    if (one := named(scope)) is not None:
        one.settled = False


class Once:
    """The middleware that knows repetitions."""

    def __init__(self, app: ASGIApp, *, services: Services) -> None:
        self._app = app
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application, unless the answer is known."""
        identity: Identity | None = scope.get(IDENTITY)
        if identity is None or scope["method"] in READING_METHODS:
            await self._app(scope, receive, send)
            return
        body = await Request(scope, receive).body()
        key = _key_of(scope, identity.user_id, body)
        if key is None:
            await self._app(scope, _again(body, receive), send)
            return
        claimed = await keys.claim(self._services.db, key)
        if claimed.answer is not None:
            await _replayed(claimed.answer)(scope, receive, send)
            return
        one = scope[_ONCE] = Named(claimed)
        await self._app(scope, _again(body, receive), self._kept(one, send))

    def _kept(self, one: Named, send: Send) -> Send:
        """Return a sender that keeps an answer before it lets it go."""
        started: Message = {}

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                started.update(message)
                return
            one.answer.append(message.get("body", b""))
            if message.get("more_body"):
                return
            if one.settled and 200 <= started["status"] < 300:
                await self._keep(one, started)
            await send(started)
            await send({"type": "http.response.body", "body": b"".join(one.answer)})

        return sent

    async def _keep(self, one: Named, started: Message) -> None:
        headers = Headers(raw=started["headers"])
        answer = {
            "status": started["status"],
            "headers": {name: headers[name] for name in _KEPT if name in headers},
            "body": base64.b64encode(b"".join(one.answer)).decode(),
        }
        try:
            await keys.keep(self._services.db, one.claimed, answer)
        except EngineError as error:  # it is made anew for a repetition
            log.info("an answer is not kept: %s", error)


def _key_of(scope: Scope, user_id: UUID, body: bytes) -> RequestKey | None:
    """Return the key of a request, if its sender gave it one."""
    about = (scope["method"].encode(), scope["path"].encode(), scope["query_string"], body)
    digest = hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in about)).hexdigest()
    key = Headers(scope=scope).get(HEADER)
    if key is not None:
        if not 0 < len(key) <= _KEY_LIMIT:
            raise Invalid(f"An Idempotency-Key has 1 to {_KEY_LIMIT} characters")
        return RequestKey(user_id, f"key/{key}", digest)
    if scope.get(correlation.CHOSEN) and scope["path"].startswith(f"{API}/"):
        name = f"correlation/{scope[correlation.KEY]}/{digest}"
        return RequestKey(user_id, name, digest, lasting=False)
    return None


def _again(body: bytes, receive: Receive) -> Receive:
    """Return a receiver that gives out a body which was received already."""
    given = False

    async def received() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return received


def _replayed(answer: Record) -> Response:
    headers: dict[str, str] = answer["headers"]
    body = base64.b64decode(answer["body"])
    return Response(body, answer["status"], headers | {REPLAYED: "true"})
