"""References as clients give them, by id or by name: what they lead to must be there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import UUID

from engine_pg.api.wire.kinds import Reference
from engine_pg.db.tx import Tx
from engine_pg.errors import Invalid, NotFound
from engine_pg.ids import BLANK_TEMPLATE_ID
from engine_pg.inventory import reads
from engine_pg.inventory.reads import N

Lookup = Callable[[Tx, Reference], Awaitable[UUID]]


def of(kind: type[N]) -> Lookup:
    """Return the look-up of a kind of row; what is not there makes the request Invalid."""

    async def lookup(tx: Tx, reference: Reference) -> UUID:
        try:
            if reference.id is None:
                return await reads.id_by_name(tx, kind, reference.name or "")
            await reads.get(tx, kind, reference.id)
        except NotFound as error:  # 404 is for what the path names
            raise Invalid(str(error)) from error
        return reference.id

    return lookup


async def of_template(tx: Tx, reference: Reference) -> UUID:  # noqa: ARG001  # one signature for all
    """Return the id of the one template that there is."""
    if reference.id == BLANK_TEMPLATE_ID or (reference.name or "").lower() == "blank":
        return BLANK_TEMPLATE_ID
    raise Invalid(f"there is no template {reference.name or reference.id}")
