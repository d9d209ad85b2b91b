"""Events: the newest first, or from an index on in the order in which they happened.

A poller asks `from` the last index that it saw and goes through the answer in order: a newest-first
answer that is cut short would lose events.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import ColumnElement, and_, func, literal, select, true
from starlette.requests import Request
from starlette.responses import Response

from engine_pg.api.call import Call
from engine_pg.api.follow import followed
from engine_pg.api.search.conditions import listing
from engine_pg.api.search.inventory import EVENTS as SEARCHABLE
from engine_pg.api.types.event import EVENT
from engine_pg.db.tx import Tx
from engine_pg.errors import NotFound
from engine_pg.inventory import reads
from engine_pg.inventory.rows import Event
from engine_pg.inventory.tables import event

PATH: Final = "events"
_LIMIT: Final = 10_000
_MAX_ID: Final = (1 << 63) - 1


async def _first(tx: Tx) -> Event:
    """Return what stands for "nothing has happened yet": clients cannot do without any event."""
    record = await tx.first(select(func.now().label("at")))
    assert record is not None
    return Event(
        event_id=0, code=0, severity="normal", at=record["at"], description="No events yet."
    )


async def listed(request: Request) -> Response:
    """Answer with the events that a search finds, after an index if one is given."""
    call = Call(request)
    after = call.number("from")
    found = listing(
        SEARCHABLE,
        call.text("search"),
        exact_case=call.flag("case_sensitive", default=False),
        limit=call.number("max"),
        bound=_LIMIT,
    )
    where: ColumnElement[bool] = true() if found.where is None else found.where
    order = found.order
    if after is not None:
        where = and_(where, event.c.event_id > literal(after))
        if order is SEARCHABLE.order:
            order = (event.c.event_id.asc(),)
    async with call.services.db.read() as tx:
        rows = await reads.listed(
            tx, Event, where, order=order, limit=found.limit, offset=found.offset
        )
        if not rows and found.limit and found.where is None and not after and not found.offset:
            rows = [await _first(tx)]
        documents = [EVENT.document(row, call.base, PATH) for row in rows]
        await followed(call, tx, documents)
    return await call.answer_all("events", "event", documents)


async def read(request: Request) -> Response:
    """Answer with one event."""
    call = Call(request)
    text: str = request.path_params["id"]
    if not (text.isascii() and text.isdecimal() and int(text[:20]) <= _MAX_ID):
        raise NotFound("there is no such event")
    async with call.services.db.read() as tx:
        row = await _first(tx) if int(text) == 0 else await reads.get(tx, Event, int(text))
    return call.answer("event", EVENT.document(row, call.base, PATH))
