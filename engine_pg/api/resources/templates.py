"""Templates: Blank can be listed, searched and read; it is in no table."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from engine_pg.api.call import Call
from engine_pg.api.follow import followed
from engine_pg.api.search.conditions import listing
from engine_pg.api.search.inventory import TEMPLATES as SEARCHABLE
from engine_pg.api.types.empty import element_of
from engine_pg.api.types.template import BLANK, TEMPLATE
from engine_pg.api.wire.document import Document
from engine_pg.errors import NotFound

PATH: Final = "templates"


def document(base: str) -> Document:
    """Return Blank."""
    return TEMPLATE.document(BLANK, base, PATH)


def _blank(call: Call) -> Document:
    if call.id_of() != BLANK.template_id:
        raise NotFound("there is no such template")
    return document(call.base)


async def listed(request: Request) -> Response:
    """Answer with Blank, if the search finds it."""
    call = Call(request)
    exact_case = call.flag("case_sensitive", default=False)
    found = listing(
        SEARCHABLE, call.text("search"), exact_case=exact_case, limit=call.number("max"), bound=100
    )
    documents = [document(call.base) for _ in await found.of(call.view)]
    followed(call, documents)
    return call.answer("templates", {"template": documents})


async def read(request: Request) -> Response:
    """Answer with Blank."""
    call = Call(request)
    blank = _blank(call)
    followed(call, [blank])
    return call.answer("template", blank)


async def part(request: Request) -> Response:
    """Answer with a collection below Blank, which is empty."""
    call = Call(request)
    _blank(call)
    rel = request.path_params["part"]
    if rel not in TEMPLATE.links:
        raise NotFound("there is no such collection")
    return call.answer(element_of(PATH, rel), {})
