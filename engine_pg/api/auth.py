"""Who asks: a bearer token or a name and a password, before anything else is looked at."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from engine_pg.api.accounts import tokens
from engine_pg.api.accounts.login import login
from engine_pg.api.accounts.tokens import Identity
from engine_pg.api.edge.paths import API
from engine_pg.api.services import Services
from engine_pg.errors import Unauthorized

IDENTITY: Final = "engine.identity"
_PROTECTED: Final = (API, "/api/v1")


def is_protected(path: str) -> bool:
    """Return whether a path is only for those whom we know."""
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in _PROTECTED)


def _name_and_password(credentials: str) -> tuple[str, str]:
    try:
        name, colon, password = base64.b64decode(credentials, validate=True).decode().partition(":")
    except (binascii.Error, ValueError) as error:
        raise Unauthorized("The credentials are not readable") from error
    if not colon:
        raise Unauthorized("The credentials are not readable")
    return name, password


async def _bearer(services: Services, token: str) -> Identity:
    async with services.db.read() as tx:
        found = await tokens.find(tx, token)
    if found is None:
        raise Unauthorized("The token is unknown or has expired")
    identity, unseen = found
    if unseen:
        async with services.db.write() as tx:
            await tokens.used(tx, token, services.settings.now.token_lifetime_s)
    return identity


async def identified(services: Services, authorization: str) -> Identity:
    """Return who sent an Authorization header, or raise Unauthorized."""
    scheme, _, credentials = authorization.strip().partition(" ")
    credentials = credentials.strip()
    if scheme.lower() == "bearer" and credentials:
        return await _bearer(services, credentials)
    if scheme.lower() == "basic":
        return await login(services, *_name_and_password(credentials))
    raise Unauthorized("Credentials are needed")


class Authentication:
    """The middleware in front of everything that is not public."""

    def __init__(self, app: ASGIApp, *, services: Services) -> None:
        self._app = app
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application for somebody we know."""
        if scope["type"] == "http" and is_protected(scope["path"]):
            authorization = Headers(scope=scope).get("authorization", "")
            scope[IDENTITY] = await identified(self._services, authorization)
        await self._app(scope, receive, send)
