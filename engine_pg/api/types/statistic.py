"""Statistics on the wire: measured values below a host or a VM."""

from __future__ import annotations

from uuid import UUID

from engine_pg.api.wire.document import Document, reference
from engine_pg.ids import derived_id

Owner = tuple[str, str, UUID]


def statistic(  # a line of a table: who, what, in which unit, how much
    base: str, owner: Owner, name: str, description: str, unit: str, value: float
) -> Document:
    """Return a statistic of an owner (element, collection, id)."""
    element, collection, owner_id = owner
    own = reference(base, collection, owner_id)
    id_ = derived_id(owner_id, "statistic", name)
    return {
        "id": str(id_),
        "href": f"{own['href']}/statistics/{id_}",
        "name": name,
        "description": description,
        "kind": "gauge",
        "type": "integer" if isinstance(value, int) else "decimal",
        "unit": unit,
        "values": {"value": [{"datum": value}]},
        element: own,
    }
