"""Who lives, leads, holds and waits: `/api/v1`, in JSON. What the command line shows, over HTTP.

Members and leaders come from the replica, locks and waiters from the database, which is asked for
members' heartbeats too.
"""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from engine_pg.api.accounts.tokens import Identity
from engine_pg.api.asked import Filters, field_text, json_object
from engine_pg.api.auth import IDENTITY
from engine_pg.api.call import age_of, reading_of
from engine_pg.api.figures import ask, members_figures
from engine_pg.api.services import Services
from engine_pg.cluster.breaking import Broken, break_lock
from engine_pg.cluster.keys import LockKey
from engine_pg.commands import shown
from engine_pg.commands.replicated import open_commands
from engine_pg.errors import Invalid
from engine_pg.replica import roster


def _services(request: Request) -> Services:
    return request.app.state.services


async def _answer(document: shown.Document, headers: dict[str, str] | None = None) -> Response:
    """Return a document; it may be long and is written in a thread, or no heart would beat here."""
    return await asyncio.to_thread(JSONResponse, document, headers=headers)


async def members(request: Request) -> Response:
    """Answer with the members; what only the database tells of them is null while it is away."""
    filters = Filters(request, "node", "ended", "max")
    services, reading = _services(request), reading_of(request)
    figures = await ask(services, reading, members_figures)
    found = roster.members(
        reading.view,
        services.reads.replica.moment(),
        {} if figures is None else figures.vitals,
        node=filters.text("node"),
        ended=filters.flag("ended"),
        most=filters.most(),
    )
    commands = open_commands(reading.view) if figures is None else figures.commands
    return await _answer(shown.members_of(found, commands), age_of(reading))


async def leaders(request: Request) -> Response:
    """Answer with the declared names and who leads them."""
    filters = Filters(request, "node", "name", "max")
    reading = reading_of(request)
    found = roster.leaders(
        reading.view,
        _services(request).reads.replica.moment(),
        node=filters.text("node"),
        name=filters.text("name"),
        most=filters.most(),
    )
    return await _answer(shown.leaders_of(found), age_of(reading))


async def locks(request: Request) -> Response:
    """Answer with the grants."""
    filters = Filters(request, "kind", "id", "node", "max")
    async with _services(request).db.read() as tx:
        document = await shown.locks(
            tx,
            kind=filters.text("kind"),
            id_=filters.text("id"),
            node=filters.text("node"),
            most=filters.most(),
        )
    return await _answer(document)


async def break_(request: Request) -> Response:
    """Break a lock: a JSON object of kind, id and reason, and token for one of several grants."""
    Filters(request)
    given = await json_object(request, "kind", "id", "reason", "token")
    token = given.get("token")
    if not isinstance(token, int | None) or isinstance(token, bool):
        raise Invalid("The token should be a whole number")
    key = LockKey(field_text(given, "kind"), field_text(given, "id"))
    identity: Identity = request.scope[IDENTITY]
    broken = await break_lock(
        _services(request).db,
        key,
        by=identity.name,
        reason=field_text(given, "reason"),
        token=token,
    )
    return await _answer({"broken": [_told(each) for each in broken]})


def _told(broken: Broken) -> dict[str, object]:
    return {
        "kind": broken.key.kind,
        "id": broken.key.id,
        "mode": broken.mode,
        "token": broken.token,
        "node": broken.node,
        "command_id": None if broken.command_id is None else str(broken.command_id),
        "forced": broken.forced,
    }


async def waiters(request: Request) -> Response:
    """Answer with who waits, and for whom."""
    services = _services(request)
    filters = Filters(request, "kind", "id", "node", "max")
    async with services.db.read() as tx:
        document = await shown.waiters(
            tx,
            services.waiting(),
            kind=filters.text("kind"),
            id_=filters.text("id"),
            node=filters.text("node"),
            most=filters.most(),
        )
    return await _answer(document)


async def wait_graph(request: Request) -> Response:
    """Answer with the wait graph and its cycles."""
    services = _services(request)
    Filters(request)
    async with services.db.read() as tx:
        document = await shown.wait_graph(tx, services.waiting())
    return await _answer(document)
