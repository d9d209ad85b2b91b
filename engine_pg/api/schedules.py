"""Schedules: `/api/v1/schedules`, in JSON. What `engine-pg schedules` does, over HTTP.

Lists come from the replica, behind its barrier; runs and changes go to the database. A version is
an ETag; a change with `If-Match` is refused with 412 when somebody was faster.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final
from uuid import UUID

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from engine_pg.api.asked import Filters, expected_version, field_text, json_object, tagged
from engine_pg.api.call import Call, age_of
from engine_pg.configuration.store import Author
from engine_pg.db.tx import Tx
from engine_pg.errors import NotFound
from engine_pg.ids import derived_id, new_id
from engine_pg.schedules import firing, runs, shown, store
from engine_pg.schedules.definition import FIELDS
from engine_pg.schedules.known import KNOWN
from engine_pg.schedules.rows import ScheduleRow

_RUNS: Final = 100
Change = Callable[[Tx, str, Author], Awaitable[ScheduleRow]]


async def listed(request: Request) -> Response:
    """Answer with all schedules, and the loops that are none."""
    Filters(request)
    call = Call(request)
    document = shown.schedules(call.view.of(ScheduleRow), call.services.settings.now)
    return JSONResponse(document, headers=age_of(call.reading))


async def read(request: Request) -> Response:
    """Answer with one schedule."""
    Filters(request)
    call = Call(request)
    found = call.view.of(ScheduleRow).get(_name(request))
    if found is None:
        raise NotFound(f"there is no schedule {_name(request)[:60]}")
    return JSONResponse(shown.schedule(found), headers=tagged(found.version) | age_of(call.reading))


async def assign(request: Request) -> Response:
    """Add a schedule, or change the fields that are given."""
    Filters(request)
    given = await json_object(request, *FIELDS, "reason")
    reason = field_text(given, "reason") if "reason" in given else ""
    values = {key: value for key, value in given.items() if key != "reason"}
    expected = expected_version(request)

    async def change(tx: Tx, name: str, author: Author) -> ScheduleRow:
        return await store.assign(tx, name, values, author, KNOWN, expected=expected)

    return await _changed(request, reason, change)


async def remove(request: Request) -> Response:
    """Remove a schedule (204), or give one of the engine's own its default back."""
    reason = Filters(request, "reason").text("reason") or ""
    call = Call(request)
    async with call.services.db.write() as tx:
        left = await store.remove(
            tx,
            _name(request),
            Author(call.identity.name, reason),
            expected=expected_version(request),
        )
    return Response(status_code=204) if left is None else _one(left)


async def pause(request: Request) -> Response:
    """Let a schedule fire no more until it is resumed."""
    return await _paused(request, paused=True)


async def resume(request: Request) -> Response:
    """Let a paused schedule fire again, from now on."""
    return await _paused(request, paused=False)


async def trigger(request: Request) -> Response:
    """Fire a schedule now; the same Idempotency-Key is the same run."""
    Filters(request)
    call = Call(request)
    run = await firing.triggered(
        call.services.db,
        _name(request),
        _run_id(call),
        call.identity.name,
        KNOWN,
    )
    return JSONResponse(shown.run(run))


async def history(request: Request) -> Response:
    """Answer with the runs of a schedule, the newest first."""
    filters = Filters(request, "max")
    most = filters.most() if filters.text("max") else _RUNS
    async with Call(request).services.db.read() as tx:
        await store.get(tx, _name(request))
        found = await runs.history(tx, schedule=_name(request), most=most)
    return JSONResponse(shown.history(found))


async def _paused(request: Request, *, paused: bool) -> Response:
    reason = Filters(request, "reason").text("reason") or ""

    async def change(tx: Tx, name: str, author: Author) -> ScheduleRow:
        return await store.pause(tx, name, author, paused=paused)

    return await _changed(request, reason, change)


async def _changed(request: Request, reason: str, change: Change) -> Response:
    call = Call(request)
    async with call.services.db.write() as tx:
        return _one(await change(tx, _name(request), Author(call.identity.name, reason)))


def _run_id(call: Call) -> UUID:
    """Return the run that this request means, whenever and wherever it is repeated."""
    key = call.request.headers.get("idempotency-key")
    if key is None:
        return new_id()
    return derived_id(call.identity.user_id, key, "trigger", _name(call.request))


def _name(request: Request) -> str:
    return request.path_params["name"]


def _one(schedule: ScheduleRow) -> Response:
    return JSONResponse(shown.schedule(schedule), headers=tagged(schedule.version))
