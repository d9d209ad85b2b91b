"""Errors on the wire: the one place where the error tree becomes status codes and faults.

401, 404 and 405 have no body: that is what oVirt's clients expect. What is not oVirt's, below
`/api/v1`, answers in JSON, always with a body. A fault never tells more than the error's own text;
what nobody foresaw is logged under the correlation id and told as "internal".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine_pg.api.wire.document import Document
from engine_pg.api.wire.media import answer
from engine_pg.api.wire.shape import Incomplete
from engine_pg.errors import (
    Conflict,
    EngineError,
    Forbidden,
    Invalid,
    KeyReused,
    Locked,
    NotFound,
    NotHeld,
    OutcomeUnknown,
    Outdated,
    Rejected,
    TooLarge,
    Unauthorized,
    Unavailable,
)

log: Final = structlog.stdlib.get_logger(__name__)

_STATUS: Final[tuple[tuple[type[EngineError], int], ...]] = (
    (Invalid, 400),
    (Unauthorized, 401),
    (Forbidden, 403),
    (NotFound, 404),
    (Outdated, 412),
    (Conflict, 409),
    (TooLarge, 413),
    (KeyReused, 422),
    (Rejected, 400),
    (Unavailable, 503),
    (NotHeld, 503),
    (OutcomeUnknown, 503),
)
_OURS: Final = "/api/v1"
_BUSY: Final = "Related operation is currently in progress. Please try again later."
_RETRY: Final = {"Retry-After": "1"}
_CHALLENGE: Final = {"WWW-Authenticate": 'Basic realm="engine_pg", charset="UTF-8"'}


def status_of(error: BaseException) -> int:
    """Return the status code of an error: by branch of the tree, 500 for what is in none."""
    return next((status for branch, status in _STATUS if isinstance(error, branch)), 500)


def fault_of(error: BaseException) -> Document:
    """Return the fault that tells a client about an error."""
    if isinstance(error, Incomplete):
        return {"reason": "Incomplete parameters", "detail": str(error)}
    text = text_of(error)
    if isinstance(error, Locked) and _BUSY not in text:
        text = f"{text.rstrip('.')}. {_BUSY}"
    return {"reason": "Operation Failed", "detail": f"[{text}]"}


def text_of(error: BaseException) -> str:
    """Return what a client may know of an error."""
    text = str(error)
    if isinstance(error, OutcomeUnknown):
        return f"The outcome is unknown, look before trying again: {text}"
    if status_of(error) == 500 and not isinstance(error, EngineError):
        return "Internal error; the engine's log tells more under this correlation id"
    return text


def _is_ours(request: Request) -> bool:
    path = request.scope["path"]
    return path == _OURS or path.startswith(f"{_OURS}/")


def _told(status: int, text: str, headers: Mapping[str, str] | None) -> Response:
    return JSONResponse({"status": status, "error": text}, status, headers)


def response_to(request: Request, error: BaseException) -> Response:
    """Return the answer to a request that ended with an error."""
    status = status_of(error)
    headers = {401: _CHALLENGE, 503: _RETRY}.get(status)
    if _is_ours(request):
        return _told(status, text_of(error), headers)
    if status == 401:
        return Response(status_code=401, headers=headers)
    if status == 404:
        return Response(status_code=404)
    return answer(request, "fault", fault_of(error), status, headers)


def http_error(request: Request, error: Exception) -> Response:
    """Return the answer to what the router refuses: 404 and 405, and OPTIONS for what is there."""
    if not isinstance(error, HTTPException):
        return response_to(request, error)
    if error.status_code == 405 and request.method == "OPTIONS":
        return Response(status_code=200, headers=error.headers)
    if _is_ours(request):
        return _told(error.status_code, error.detail, error.headers)
    return Response(status_code=error.status_code, headers=error.headers)


class Faults:
    """The middleware that answers for every error raised further in."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application; answer with a fault if it fails before it answers."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except ClientDisconnect:
            return  # nobody is there to be told
        except Exception as error:  # the last line of defence: told and logged here
            _report(scope, error)
            if started:
                raise  # too late for a fault: the server cuts the connection
            await response_to(Request(scope), error)(scope, receive, send)


def _report(scope: Scope, error: Exception) -> None:
    status, method, path = status_of(error), scope["method"], scope["path"]
    if status == 500:
        log.error("request failed", method=method, path=path, exc_info=error)
    elif status == 503:
        log.warning("request not served", method=method, path=path, error=repr(error))
