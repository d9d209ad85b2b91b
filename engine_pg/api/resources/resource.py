"""What a type of entity is made of, as far as the API is concerned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar
from uuid import UUID

from engine_pg.api.resources.lookups import Lookup
from engine_pg.api.search.conditions import Searchable
from engine_pg.api.wire.document import Document
from engine_pg.api.wire.shape import Shape
from engine_pg.inventory.rows import Cluster, DataCenter, Host, Vm
from engine_pg.replica.view import View

N = TypeVar("N", DataCenter, Cluster, Host, Vm)


@dataclass(frozen=True, slots=True)
class Part:
    """A collection below an entity, e.g. the statistics of a host.

    `load` takes a view, the base of hrefs and the owners' ids, and returns the documents by owner.
    """

    many: str
    one: str
    load: Callable[[View, str, Sequence[UUID]], Mapping[UUID, list[Document]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource(Generic[N]):
    """A type of entity that clients can list, read, add, change and remove.

    `mandatory` are the elements that an add needs, `defaults` the parameters that it may leave
    out, `flags` those that come in the query; `lookups` finds what references lead to, which stays
    as it was given first.
    """

    kind: type[N]
    path: str
    subject: str
    shape: Shape
    searchable: Searchable[N]
    mandatory: Sequence[str]
    add_until: Literal["accepted", "final"] = "final"
    defaults: Mapping[str, Any] = field(default_factory=dict[str, Any])
    lookups: Mapping[str, Lookup] = field(default_factory=dict[str, Lookup])
    flags: Mapping[str, bool] = field(default_factory=dict[str, bool])
    parts: Mapping[str, Part] = field(default_factory=dict[str, Part])

    def documents(self, view: View, base: str, ids: Sequence[UUID]) -> Mapping[UUID, Document]:
        """Return the documents of the entities with these ids, as far as they exist."""
        rows = view.of(self.kind)
        return {
            id_: self.shape.document(row, base, self.path)
            for id_ in ids
            if (row := rows.get(id_)) is not None
        }
