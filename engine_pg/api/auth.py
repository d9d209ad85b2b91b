"""Who asks: a bearer token or a name and a password, before anything else is looked at."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from engine_pg.api.accounts import tokens
from engine_pg.api.accounts.login import login
from engine_pg.api.accounts.replicated import bearer
from engine_pg.api.accounts.tokens import Identity
from engine_pg.api.edge.paths import API
from engine_pg.api.services import Services
from engine_pg.errors import DatabaseAway, Unauthorized
from engine_pg.replica.reading import Reading

IDENTITY: Final = "engine.identity"
READING: Final = "engine.reading"
READING_METHODS: Final = ("GET", "HEAD", "OPTIONS")
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


async def _bearer(services: Services, reading: Reading, token: str) -> Identity:
    found = bearer(reading.view, token, services.reads.replica.moment())
    if found is None and reading.stale_s is not None:
        raise DatabaseAway("no writable PostgreSQL answers: the token may be a new one")
    if found is None:
        raise Unauthorized("The token is unknown or has expired")
    identity, unseen = found
    if unseen and reading.stale_s is None:
        async with services.db.write() as tx:
            await tokens.used(tx, token, services.settings.now.token_lifetime_s)
    return identity


async def identified(services: Services, reading: Reading, authorization: str) -> Identity:
    """Return who sent an Authorization header, or raise Unauthorized."""
    scheme, _, credentials = authorization.strip().partition(" ")
    credentials = credentials.strip()
    if scheme.lower() == "bearer" and credentials:
        return await _bearer(services, reading, credentials)
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
            old_ok = scope["method"] in READING_METHODS
            reading = scope[READING] = await self._services.reads.take(old_ok=old_ok)
            authorization = Headers(scope=scope).get("authorization", "")
            scope[IDENTITY] = await identified(self._services, reading, authorization)
        await self._app(scope, receive, send)
