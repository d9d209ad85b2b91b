"""All collections by name: what a reference or a link leads to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from engine_pg.api.resources.clusters import CLUSTERS
from engine_pg.api.resources.data_centers import DATA_CENTERS
from engine_pg.api.resources.hosts import HOSTS
from engine_pg.api.resources.resource import Resource
from engine_pg.api.resources.vms import VMS
from engine_pg.api.types.job import step
from engine_pg.api.types.template import BLANK, TEMPLATE
from engine_pg.api.wire.document import Document
from engine_pg.commands.replicated import with_steps
from engine_pg.commands.rows import CommandView
from engine_pg.replica.view import View

RESOURCES: Final[Mapping[str, Resource[Any]]] = {
    resource.path: resource for resource in (DATA_CENTERS, CLUSTERS, HOSTS, VMS)
}
Parts = tuple[str, Mapping[UUID, list[Document]]]


def members(view: View, base: str, collection: str, ids: Sequence[UUID]) -> Mapping[UUID, Document]:
    """Return the documents of a collection's members, as far as they exist."""
    if collection == "templates":
        return {BLANK.template_id: TEMPLATE.document(BLANK, base, collection)}
    resource = RESOURCES.get(collection)
    return resource.documents(view, base, ids) if resource else {}


def parts(view: View, base: str, collection: str, rel: str, ids: Sequence[UUID]) -> Parts:
    """Return the element of a sub-collection's members, and these by owner."""
    if (collection, rel) == ("jobs", "steps"):
        commands = [each for id_ in ids if (each := view.of(CommandView).get(id_))]
        whole = [with_steps(view, each) for each in commands]
        return "step", {v.command_id: [step(v, one, base) for one in v.steps] for v in whole}
    resource = RESOURCES.get(collection)
    part = resource.parts.get(rel) if resource else None
    return ("", {}) if part is None else (part.one, part.load(view, base, ids))
