"""How large a request may be: its body as it streams in, whatever it announced, and its head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine_pg.errors import TooLarge

_HEADER_LIMIT_BYTES: Final = 32 << 10
_QUERY_LIMIT_BYTES: Final = 16 << 10
_PATH_LIMIT_BYTES: Final = 2 << 10


def check_head(scope: Scope) -> None:
    """Raise TooLarge when the path, the query or the headers are over their limits."""
    if len(scope["path"]) > _PATH_LIMIT_BYTES:
        raise TooLarge("The path is too long")
    if len(scope["query_string"]) > _QUERY_LIMIT_BYTES:
        raise TooLarge("The query is too long")
    if sum(len(key) + len(value) for key, value in scope["headers"]) > _HEADER_LIMIT_BYTES:
        raise TooLarge("The headers are too large")


class Limits:
    """The middleware that refuses what is too large before anybody reads it."""

    def __init__(self, app: ASGIApp, *, body_limit_bytes: Callable[[], int]) -> None:
        self._app = app
        self._body_limit_bytes = body_limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application on a body that is counted."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        check_head(scope)
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal():
            self._check(int(announced[:20]))
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            self._check(received)
            return message

        await self._app(scope, counted, send)

    def _check(self, size_bytes: int) -> None:
        limit_bytes = self._body_limit_bytes()
        if size_bytes > limit_bytes:
            raise TooLarge(f"The request is larger than {limit_bytes} bytes")
