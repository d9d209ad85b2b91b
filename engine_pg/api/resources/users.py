"""Users, as far as other resources refer to them."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from engine_pg.api.accounts import users
from engine_pg.api.accounts.users import User
from engine_pg.api.call import Call
from engine_pg.api.wire.document import Document, reference
from engine_pg.errors import NotFound


def document(user: User, base: str) -> Document:
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
    async with call.services.db.read() as tx:
        documents = [document(user, call.base) for user in await users.listed(tx)]
    return call.answer("users", {"user": documents})


async def read(request: Request) -> Response:
    """Answer with one user; `me` is the one who asks."""
    call = Call(request)
    me = request.path_params["id"] == "me"
    id_ = call.identity.user_id if me else call.id_of()
    async with call.services.db.read() as tx:
        found = next((user for user in await users.listed(tx) if user.user_id == id_), None)
    if found is None:
        raise NotFound("there is no such user")
    return call.answer("user", document(found, call.base))
