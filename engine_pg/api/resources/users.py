"""Users, as far as other resources refer to them."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from engine_pg.api.accounts.replicated import Account
from engine_pg.api.call import Call
from engine_pg.api.wire.document import Document, reference
from engine_pg.errors import NotFound


def document(user: Account, base: str) -> Document:
    """Return a user."""
    name, _, domain = user.name.partition("@")
    return reference(base, "users", user.user_id, name) | {
        "user_name": user.name,
        "principal": name,
        "namespace": "*",
        "domain_entry_id": str(user.user_id),
        "domain": {"name": domain or "internal"},
    }


async def listed(request: Request) -> Response:
    """Answer with all users."""
    call = Call(request)
    documents = [document(user, call.base) for user in call.view.of(Account)]
    return call.answer("users", {"user": documents})


async def read(request: Request) -> Response:
    """Answer with one user; `me` is the one who asks."""
    call = Call(request)
    me = request.path_params["id"] == "me"
    id_ = call.identity.user_id if me else call.id_of()
    found = call.view.of(Account).get(id_)
    if found is None:
        raise NotFound("there is no such user")
    return call.answer("user", document(found, call.base))
