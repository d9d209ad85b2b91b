"""Logging in and out as oVirt's clients do it, at the paths that they have built in."""

from __future__ import annotations

from typing import Final

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from engine_pg.api.accounts import tokens
from engine_pg.api.accounts.login import login
from engine_pg.api.services import Services
from engine_pg.errors import OutcomeUnknown, Unauthorized, Unavailable

_SCOPE: Final = "ovirt-app-api"
_NO_STORE: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}


def _text(form: FormData, name: str) -> str:
    value = form.get(name)
    return value if isinstance(value, str) else ""


def _refused(code: str, text: str, status: int = 400) -> Response:
    body = {"error_code": code, "error": text, "error_description": text}
    return JSONResponse(body, status, _NO_STORE)


async def token(request: Request) -> Response:
    """Give a token for a name and a password (the password grant)."""
    services: Services = request.app.state.services
    form = await request.form(max_files=0, max_fields=20)
    if _text(form, "grant_type") != "password":
        return _refused("unsupported_grant_type", "Only the grant type password is supported.")
    try:
        identity = await login(services, _text(form, "username"), _text(form, "password"))
        async with services.db.write() as tx:
            text, expires_at = await tokens.issue(
                tx, identity.user_id, services.settings.now.token_lifetime_s
            )
    except Unauthorized as error:
        return _refused("access_denied", str(error))
    except (Unavailable, OutcomeUnknown) as error:  # a token nobody heard of expires unused
        return _refused("server_error", str(error), 503)
    answer = {
        "access_token": text,
        "scope": _text(form, "scope") or _SCOPE,
        "exp": str(int(expires_at.timestamp() * 1000)),
        "token_type": "bearer",
    }
    return JSONResponse(answer, headers=_NO_STORE)


async def logout(request: Request) -> Response:
    """End a token; one that we don't know is ended already."""
    services: Services = request.app.state.services
    form = await request.form(max_files=0, max_fields=20)
    if text := _text(form, "token"):
        async with services.db.write() as tx:
            await tokens.revoke(tx, text)
    return JSONResponse({}, headers=_NO_STORE)
