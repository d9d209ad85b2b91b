"""Collections of one member, which others refer to, and of none, which clients go through."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from engine_pg.api.call import Call
from engine_pg.api.types.defaults import MAC_POOL_ID, SCHEDULING_POLICY_ID
from engine_pg.api.wire.document import Document, reference
from engine_pg.errors import NotFound

Endpoint = Callable[[Request], Awaitable[Response]]

_MAC_POOL: Final[Document] = {
    "description": "Default MAC pool",
    "allow_duplicates": False,
    "default_pool": True,
    "ranges": {"range": [{"from": "56:6f:00:00:00:00", "to": "56:6f:00:ff:ff:ff"}]},
}
_SCHEDULING_POLICY: Final[Document] = {
    "description": "Places a VM where most memory and processors are free",
    "default_policy": True,
    "locked": True,
}


def _single(
    path: str, many: str, one: str, name: str, id_: UUID, about: Document
) -> tuple[Endpoint, Endpoint]:
    async def listed(request: Request) -> Response:
        call = Call(request)
        document = reference(call.base, path, id_, name) | about
        return call.answer(many, {one: [document]})

    async def read(request: Request) -> Response:
        call = Call(request)
        if call.id_of() != id_:
            raise NotFound("there is no such thing")
        return call.answer(one, reference(call.base, path, id_, name) | about)

    return listed, read


def none(many: str) -> Endpoint:
    """Return the endpoint of a collection that is always empty."""

    async def listed(request: Request) -> Response:
        return Call(request).answer(many, {})

    return listed


mac_pools, mac_pool = _single(
    "macpools", "mac_pools", "mac_pool", "Default", MAC_POOL_ID, _MAC_POOL
)
scheduling_policies, scheduling_policy = _single(
    "schedulingpolicies",
    "scheduling_policies",
    "scheduling_policy",
    "evenly_distributed",
    SCHEDULING_POLICY_ID,
    _SCHEDULING_POLICY,
)
