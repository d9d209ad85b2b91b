"""The cluster settings: `/api/v1/settings`, in JSON. What `engine-pg settings` does, over HTTP.

A version is an ETag; a change with `If-Match` is refused with 412 when somebody was faster.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from engine_pg.api.accounts.tokens import Identity
from engine_pg.api.asked import Filters, field_text, json_object
from engine_pg.api.asked import expected_version as _expected
from engine_pg.api.asked import tagged as _tagged
from engine_pg.api.auth import IDENTITY
from engine_pg.api.call import age_of, reading_of
from engine_pg.api.services import Services
from engine_pg.configuration import shown, store
from engine_pg.configuration.store import Author, Book
from engine_pg.replica import cluster_settings


async def listed(request: Request) -> Response:
    """Answer with all settings."""
    Filters(request)
    reading = reading_of(request)
    book = cluster_settings.book(reading.view)
    return JSONResponse(shown.settings(book), headers=_tagged(book.version) | age_of(reading))


async def read(request: Request) -> Response:
    """Answer with one setting."""
    Filters(request)
    reading = reading_of(request)
    return _one(request, cluster_settings.book(reading.view), age_of(reading))


async def assign(request: Request) -> Response:
    """Give a setting a value: a JSON object of `value`, and `reason` if there is one."""
    Filters(request)
    given = await json_object(request, "value", "reason")
    reason = field_text(given, "reason") if "reason" in given else ""
    services: Services = request.app.state.services
    async with services.db.write() as tx:
        book = await store.assign(
            tx,
            _name(request),
            given.get("value"),
            _author(request, reason),
            expected=_expected(request),
        )
    return _one(request, book)


async def reset(request: Request) -> Response:
    """Give a setting its default back."""
    reason = Filters(request, "reason").text("reason") or ""
    services: Services = request.app.state.services
    async with services.db.write() as tx:
        book = await store.reset(
            tx, _name(request), _author(request, reason), expected=_expected(request)
        )
    return _one(request, book)


async def history(request: Request) -> Response:
    """Answer with who changed what when."""
    filters = Filters(request, "name", "max")
    services: Services = request.app.state.services
    async with services.db.read() as tx:
        records = await store.history(tx, name=filters.text("name"), most=filters.most())
    return JSONResponse(shown.history(records))


def _name(request: Request) -> str:
    return request.path_params["name"]


def _one(request: Request, book: Book, headers: Mapping[str, str] | None = None) -> Response:
    document = shown.setting(book, _name(request))
    return JSONResponse(document, headers={**_tagged(document["version"]), **(headers or {})})


def _author(request: Request, reason: str) -> Author:
    identity: Identity = request.scope[IDENTITY]
    return Author(identity.name, reason)
