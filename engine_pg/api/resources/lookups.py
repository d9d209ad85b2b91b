"""What a request names must be there: entities by id, and references by id or by name."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from engine_pg.api.wire.kinds import Reference
from engine_pg.errors import Invalid, NotFound
from engine_pg.ids import BLANK_TEMPLATE_ID
from engine_pg.inventory.reads import N, noun_of
from engine_pg.replica.view import View

Lookup = Callable[[View, Reference], UUID]


def there(view: View, kind: type[N], id_: UUID) -> N:
    """Return the row with an id, or raise NotFound."""
    row = view.of(kind).get(id_)
    if row is None:
        raise NotFound(f"there is no {noun_of(kind)} {id_}")
    return row


def of(kind: type[N], id_column: str) -> Lookup:
    """Return the look-up of a kind of row; what is not there makes the request Invalid."""

    def lookup(view: View, reference: Reference) -> UUID:
        if reference.id is not None:  # 404 is for what the path names
            if view.of(kind).get(reference.id) is None:
                raise Invalid(f"there is no {noun_of(kind)} {reference.id}")
            return reference.id
        name = reference.name or ""
        found = view.of(kind).by("name", name.lower())
        if not found:
            raise Invalid(f"there is no {noun_of(kind)} {name!r}")
        id_: UUID = getattr(found[0], id_column)
        return id_

    return lookup


def of_template(view: View, reference: Reference) -> UUID:  # noqa: ARG001  # one signature for all
    """Return the id of the one template that there is."""
    if reference.id == BLANK_TEMPLATE_ID or (reference.name or "").lower() == "blank":
        return BLANK_TEMPLATE_ID
    raise Invalid(f"there is no template {reference.name or reference.id}")
