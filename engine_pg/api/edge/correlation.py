"""One id for everything that a request causes: in events, jobs, the log, and the answer."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qs

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine_pg.ids import new_id

HEADER: Final = "correlation-id"
KEY: Final = "engine.correlation_id"
CHOSEN: Final = "engine.correlation_chosen"
"""Whether the client chose it."""
_ACCEPTABLE: Final = re.compile(r"[0-9A-Za-z_-]{1,36}", re.ASCII)


def chosen_by_client(scope: Scope) -> str | None:
    """Return the id that the client chose, by header or parameter, if it is acceptable."""
    chosen = Headers(scope=scope).get(HEADER)
    if chosen is None and b"correlation_id=" in scope["query_string"]:
        query = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=1000)
        chosen = query.get("correlation_id", [""])[0]
    return chosen if chosen and _ACCEPTABLE.fullmatch(chosen) else None


class Correlation:
    """The middleware that names a request and puts the name on the answer and on the log."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application under the correlation id."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        chosen = chosen_by_client(scope)
        scope[CHOSEN] = chosen is not None
        correlation_id = scope[KEY] = chosen or str(new_id())

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = correlation_id
            await send(message)

        with structlog.contextvars.bound_contextvars(correlation_id=correlation_id):
            await self._app(scope, receive, named)
