"""Where the API lives, and the spellings of its paths that clients use.

A client whose URL ends with a slash asks for `/api//vms`; one may name the version as `/api/v4`
and then expects references to begin so. Paths are set right here, since a redirect would not be
followed.
"""

from __future__ import annotations

import re
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from engine_pg.errors import Invalid

API: Final = "/ovirt-engine/api"
VERSIONED: Final = f"{API}/v4"
BASE: Final = "engine.base"
_SLASHES: Final = re.compile("//+")


def normalised(path: str) -> tuple[str, str]:
    """Return the path that is routed, and the beginning of the references in the answer."""
    path = _SLASHES.sub("/", path)
    path = path.rstrip("/") or "/"
    if path == VERSIONED or path.startswith(f"{VERSIONED}/"):
        return API + path.removeprefix(VERSIONED), VERSIONED
    return path, API


class Paths:
    """The middleware that sets the path right and refuses other versions of the API."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application on the path as it is routed."""
        if scope["type"] == "http":
            scope["path"], scope[BASE] = normalised(scope["path"])
            version = Headers(scope=scope).get("version", "4")
            if version != "4" and scope["path"].startswith(API):
                raise Invalid(f"Version {version[:20]} of the API is not supported, only 4 is")
        await self._app(scope, receive, send)
