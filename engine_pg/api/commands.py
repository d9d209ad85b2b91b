"""Commands: `/api/v1/commands`, in JSON. What `engine-pg commands` does, over HTTP."""

from __future__ import annotations

import asyncio
from typing import Final
from uuid import UUID

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from engine_pg.api.accounts.tokens import Identity
from engine_pg.api.asked import Filters
from engine_pg.api.auth import IDENTITY
from engine_pg.api.services import Services
from engine_pg.api.wire.kinds import uuid
from engine_pg.commands import listed as documents
from engine_pg.commands.desk import Desk
from engine_pg.commands.registry import REGISTRY
from engine_pg.errors import Invalid, NotFound

_DESK: Final = Desk(REGISTRY)
_PATH: Final = "/api/v1/commands"


async def listed(request: Request) -> Response:
    """Answer with commands, the newest first."""
    filters = Filters(
        request, "state", "open", "node", "subject_id", "user_name", "parent_id", "max"
    )
    async with _services(request).db.read() as tx:
        document = await documents.commands(
            tx,
            state=filters.text("state"),
            open_=filters.flag("open"),
            node=filters.text("node"),
            subject_id=_id_in(filters, "subject_id"),
            user_name=filters.text("user_name"),
            parent_id=_id_in(filters, "parent_id"),
            most=filters.most(),
        )
    return await asyncio.to_thread(JSONResponse, document)


async def read(request: Request) -> Response:
    """Answer with one command, its steps and its children."""
    Filters(request)
    async with _services(request).db.read() as tx:
        document = await documents.command(tx, _id_of(request))
    return await asyncio.to_thread(JSONResponse, document)


async def cancel(request: Request) -> Response:
    """Ask for the end of a command, and answer with it as it is then."""
    Filters(request)
    command_id, services = _id_of(request), _services(request)
    async with services.db.write() as tx:
        command = await _DESK.cancel(tx, command_id, by=_user(request))
        document = await documents.command(tx, command_id)
    return JSONResponse(document, 200 if command.final else 202)


async def retry(request: Request) -> Response:
    """Submit a command anew that ended without success, and answer with the new one."""
    Filters(request)
    async with _services(request).db.write() as tx:
        again = await _DESK.retry(tx, _id_of(request), by=_user(request))
        document = await documents.command(tx, again.command_id)
    return JSONResponse(document, 202, {"Location": f"{_PATH}/{again.command_id}"})


def _services(request: Request) -> Services:
    return request.app.state.services


def _user(request: Request) -> str:
    identity: Identity = request.scope[IDENTITY]
    return identity.name


def _id_of(request: Request) -> UUID:
    try:
        return uuid(request.path_params["id"])
    except ValueError as error:
        raise NotFound("there is no such command") from error


def _id_in(filters: Filters, name: str) -> UUID | None:
    text = filters.text(name)
    try:
        return None if text is None else uuid(text)
    except ValueError as error:
        raise Invalid(f"The parameter {name} should be an id, not {text}") from error
