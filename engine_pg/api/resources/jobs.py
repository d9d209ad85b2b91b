"""Jobs: what the engine was asked to do and how far it has come."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from engine_pg.api.accounts.replicated import Account
from engine_pg.api.call import Call
from engine_pg.api.follow import followed
from engine_pg.api.search.grammar import Comparison, parsed
from engine_pg.api.types.job import job, step
from engine_pg.api.wire.document import Document
from engine_pg.commands import replicated, store
from engine_pg.commands.rows import CommandView
from engine_pg.errors import Invalid, NotFound

_LIMIT: Final = 1000
_DEFAULT: Final = 100


def _correlation_id(text: str) -> tuple[str | None, int]:
    """Return the correlation id that a search asks for, and the page."""
    search = parsed(text)
    if search.where is None:
        return None, search.page
    match search.where:
        case Comparison("correlation_id", "=", value) if "*" not in value:
            return value, search.page
        case _:
            raise Invalid("Jobs can only be searched for by correlation_id=value")


def _documents(call: Call, commands: list[CommandView]) -> list[Document]:
    documents = [job(each, call.base, _owner_of(call, each)) for each in commands]
    followed(call, documents)
    return documents


def _owner_of(call: Call, command: CommandView) -> UUID | None:
    found = call.view.of(Account).by("name", command.user_name.lower())
    return found[0].user_id if found else None


async def listed(request: Request) -> Response:
    """Answer with jobs, the newest first."""
    call = Call(request)
    correlation_id, page = _correlation_id(call.text("search"))
    limit = call.number("max")
    limit = min(_DEFAULT if limit is None else limit, _LIMIT)
    found = replicated.listed(
        call.view, correlation_id=correlation_id, limit=limit, offset=(page - 1) * limit
    )
    documents = _documents(call, found)
    return call.answer("jobs", {"job": documents})


async def _command(call: Call) -> CommandView:
    """Return the command that the path names; one of long ago comes from the database."""
    id_ = call.id_of()
    found = call.view.of(CommandView).get(id_)
    if found is not None:
        return replicated.with_steps(call.view, found)
    async with call.services.db.read() as tx:
        return await store.view(tx, id_)


async def read(request: Request) -> Response:
    """Answer with one job."""
    call = Call(request)
    documents = _documents(call, [await _command(call)])
    return call.answer("job", documents[0])


async def steps(request: Request) -> Response:
    """Answer with the steps of a job."""
    call = Call(request)
    view = await _command(call)
    return call.answer("steps", {"step": [step(view, one, call.base) for one in view.steps]})


async def read_step(request: Request) -> Response:
    """Answer with one step of a job."""
    call = Call(request)
    view = await _command(call)
    documents = [step(view, one, call.base) for one in view.steps]
    wanted = str(request.path_params["step_id"])
    found = next((document for document in documents if document["id"] == wanted), None)
    if found is None:
        raise NotFound("there is no such step")
    return call.answer("step", found)
