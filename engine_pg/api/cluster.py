"""Who lives, leads, holds and waits: `/api/v1`, in JSON. What the command line shows, over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Final, cast

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from engine_pg.api.accounts.tokens import Identity
from engine_pg.api.auth import IDENTITY
from engine_pg.api.services import Services
from engine_pg.cluster import looks
from engine_pg.cluster.breaking import Broken, break_lock
from engine_pg.cluster.keys import LockKey
from engine_pg.commands import shown
from engine_pg.errors import Invalid

_TRUTH: Final[Mapping[str, bool]] = {"true": True, "1": True, "false": False, "0": False}
_LONGEST: Final = 1000


class Filters:
    """The parameters of a query, of which only the named ones are understood."""

    def __init__(self, request: Request, *known: str) -> None:
        self._given = request.query_params
        for name in self._given:
            if name not in known:
                there = ", ".join(known) if known else "none"
                raise Invalid(f"There is no parameter {name[:40]} here; there are: {there}")
            if len(self._given.getlist(name)) > 1:
                raise Invalid(f"The parameter {name} is given more than once")

    def text(self, name: str) -> str | None:
        """Return a parameter that is looked for as it is."""
        text = self._given.get(name)
        if text is not None and (not text or len(text) > _LONGEST or "\0" in text):
            raise Invalid(f"The parameter {name} should be a text of 1 to {_LONGEST} characters")
        return text

    def flag(self, name: str) -> bool:
        """Return a parameter that is true or false, which it is when absent."""
        text = self._given.get(name, "false").lower()
        if text not in _TRUTH:
            raise Invalid(f"The parameter {name} should be true or false, not {text[:40]}")
        return _TRUTH[text]

    def most(self) -> int:
        """Return `max`: how many rows are wanted."""
        text = self._given.get("max")
        if text is None:
            return looks.MOST
        if not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= looks.MOST):
            raise Invalid(f"The parameter max should be from 1 to {looks.MOST}, not {text[:40]}")
        return int(text)


def _services(request: Request) -> Services:
    return request.app.state.services


async def _answer(document: shown.Document) -> Response:
    """Return a document; it may be long and is written in a thread, or no heart would beat here."""
    return await asyncio.to_thread(JSONResponse, document)


async def members(request: Request) -> Response:
    """Answer with the members."""
    filters = Filters(request, "node", "ended", "max")
    async with _services(request).db.read() as tx:
        document = await shown.members(
            tx, node=filters.text("node"), ended=filters.flag("ended"), most=filters.most()
        )
    return await _answer(document)


async def leaders(request: Request) -> Response:
    """Answer with the declared names and who leads them."""
    filters = Filters(request, "node", "name", "max")
    async with _services(request).db.read() as tx:
        document = await shown.leaders(
            tx, node=filters.text("node"), name=filters.text("name"), most=filters.most()
        )
    return await _answer(document)


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
    given = await _object(request, "kind", "id", "reason", "token")
    token = given.get("token")
    if not isinstance(token, int | None) or isinstance(token, bool):
        raise Invalid("The token should be a whole number")
    key = LockKey(_text(given, "kind"), _text(given, "id"))
    identity: Identity = request.scope[IDENTITY]
    broken = await break_lock(
        _services(request).db, key, by=identity.name, reason=_text(given, "reason"), token=token
    )
    return await _answer({"broken": [_told(each) for each in broken]})


async def _object(request: Request, *known: str) -> Mapping[str, object]:
    try:
        given = cast("object", json.loads(await request.body()))
    except ValueError as error:
        raise Invalid("The body should be a JSON object") from error
    if not isinstance(given, dict):
        raise Invalid("The body should be a JSON object")
    found = cast("dict[str, object]", given)
    if unknown := sorted(found.keys() - set(known)):
        raise Invalid(f"There is no field {unknown[0][:40]} here; there are: {', '.join(known)}")
    return found


def _text(given: Mapping[str, object], name: str) -> str:
    text = given.get(name)
    if not isinstance(text, str) or not text.strip():
        raise Invalid(f"The field {name} should be a text")
    return text


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
