"""Events: the newest first, or from an index on in the order in which they happened.

A poller asks `from` the last index that it saw and goes through the answer in order: a newest-first
answer that is cut short would lose events.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import takewhile
from typing import Final

from sqlalchemy import and_
from starlette.requests import Request
from starlette.responses import Response

from engine_pg.api.call import Call
from engine_pg.api.follow import answered
from engine_pg.api.search.conditions import listing
from engine_pg.api.search.inventory import EVENTS as SEARCHABLE
from engine_pg.api.types.event import EVENT
from engine_pg.errors import NotFound, OutcomeUnknown, Unavailable
from engine_pg.inventory import reads
from engine_pg.inventory.rows import Event
from engine_pg.inventory.tables import event
from engine_pg.replica.inventory import EVENTS_KEPT
from engine_pg.replica.view import View

PATH: Final = "events"
_LIMIT: Final = 10_000
_MAX_ID: Final = (1 << 63) - 1


def _first(view: View) -> Event:
    """Return what stands for "nothing has happened yet": clients cannot do without any event."""
    return Event(event_id=0, code=0, severity="normal", at=view.at, description="No events yet.")


async def _caught_up(call: Call) -> View:
    """Return a view that has all events that were committed before the request came."""
    with suppress(Unavailable, OutcomeUnknown):  # then there are those that have their numbers
        if not call.services.reads.replica.away:
            await call.services.numbering.caught_up()
    return await call.read_again()


async def _after(call: Call, view: View, after: int) -> list[Event]:
    """Return the events after an index, the oldest first; first those that are in no replica.

    Of these there may be more than a list has place for: then the rest is for the next request.
    """
    kept = view.of(Event)
    later = list(takewhile(lambda each: each.event_id > after, kept))[::-1]
    if len(kept) < EVENTS_KEPT or len(later) < len(kept):
        return later
    async with call.services.db.read() as tx:
        between = and_(event.c.event_id > after, event.c.event_id < later[0].event_id)
        older = await reads.listed(tx, Event, between, limit=_LIMIT)
    return older if len(older) == _LIMIT else older + later


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
    view = await _caught_up(call)
    rows = await found.of(view, None if after is None else await _after(call, view, after))
    where = found.search.where
    if not rows and found.limit and where is None and not after and not found.offset:
        rows = [_first(view)]
    return await answered(call, EVENT, PATH, rows)


async def read(request: Request) -> Response:
    """Answer with one event."""
    call = Call(request)
    text: str = request.path_params["id"]
    if not (text.isascii() and text.isdecimal() and int(text[:20]) <= _MAX_ID):
        raise NotFound("there is no such event")
    row = _first(call.view) if int(text) == 0 else call.view.of(Event).get(int(text))
    if row is None:  # one of long ago, perhaps
        async with call.services.db.read() as tx:
            row = await reads.get(tx, Event, int(text))
    return call.answer("event", EVENT.document(row, call.base, PATH))
