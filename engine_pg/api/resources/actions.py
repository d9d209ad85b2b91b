"""Actions on an entity, and what a command's end means for the request that asked for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from engine_pg.api.call import Call
from engine_pg.api.once import named, unsettled
from engine_pg.api.resources import lookups
from engine_pg.api.services import Until
from engine_pg.api.wire.document import Document, reference
from engine_pg.api.wire.kinds import BOOLEAN, STRING, Reference, many, ref
from engine_pg.api.wire.shape import Shape, accepted
from engine_pg.commands import store
from engine_pg.commands.rows import CommandView, Submission
from engine_pg.errors import NotFound, OutcomeUnknown
from engine_pg.inventory.reads import N
from engine_pg.inventory.rows import Host

_HOSTS: Final = many("host", ref("hosts"))
_HOST: Final = lookups.of(Host, "host_id")
ACTION: Final = Shape(
    "action",
    "actions",
    "",
    accepted("reason", STRING, "reason"),
    accepted("force", BOOLEAN, "force"),
    accepted("host", ref("hosts"), "host_id"),
    accepted("vm/placement_policy/hosts", _HOSTS, "host_ids"),
)


async def earlier(call: Call) -> Submission | None:
    """Return what the same request submitted when it came before, if it did."""
    one = named(call.request.scope)
    if one is None or not one.claimed.repeated:
        return None
    async with call.services.db.read() as tx:
        try:
            return (await store.view(tx, one.claimed.command_id)).submission
        except NotFound:
            return None


async def performed(call: Call, submission: Submission, until: Until) -> CommandView:
    """Submit a command and wait for it; whatever is uncertain names the job that tells."""
    job = f"{call.base}/jobs/{submission.command_id}"
    bound_s = call.services.settings.now.accept_wait_s
    try:
        return await call.services.commands.perform(submission, until=until, bound_s=bound_s)
    except OutcomeUnknown as error:
        raise OutcomeUnknown(f"{error}; see {job}") from error


def reached(view: CommandView, until: Until) -> bool:
    """Return whether a command came as far as its caller waits for."""
    return view.final or (until == "accepted" and view.accepted)


async def concluded(call: Call, submission: Submission, until: Until) -> None:
    """Submit a command and return when it came so far, or raise OutcomeUnknown."""
    view = await performed(call, submission, until)
    if not reached(view, until):
        raise OutcomeUnknown(f"{view.description} goes on; see {call.base}/jobs/{view.command_id}")


def action(
    kind: type[N],
    command: str,
    until: Until,
    params: Callable[[Call, Document], Awaitable[dict[str, Any]]],
) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint of an action, which submits a command about the entity in the path."""

    async def endpoint(request: Request) -> Response:
        call = Call(request)
        id_ = call.id_of()
        submission = await earlier(call)
        if submission is None:
            given = await params(call, await call.body("action"))
            row = lookups.there(call.view, kind, id_)
            submission = call.submission(command, id_, given | {"name": row.name})
        view = await performed(call, submission, until)
        if not reached(view, until):
            unsettled(request.scope)
        document = {
            "status": "complete" if reached(view, until) else "pending",
            "job": reference(call.base, "jobs", view.command_id),
        }
        return call.answer("action", document)

    return endpoint


async def nothing(call: Call, document: Document) -> dict[str, Any]:  # noqa: ARG001  # one signature
    """Return the parameters of an action that has none."""
    ACTION.form(document)
    return {}


async def reason(call: Call, document: Document) -> dict[str, Any]:  # noqa: ARG001  # one signature
    """Return the reason that was given, if any."""
    form = ACTION.form(document)
    return {"reason": form.get("reason", "")}


async def placement(call: Call, document: Document) -> dict[str, Any]:
    """Return the host that was asked for, if any."""
    form = ACTION.form(document)
    wanted: list[Reference] = form.get("vm/placement_policy/hosts", [])
    host: Reference | None = form.get("host") or next(iter(wanted), None)
    if host is None:
        return {}
    return {"host_id": str(_HOST(call.view, host))}
