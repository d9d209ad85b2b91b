"""Data centers, and the clusters of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

from sqlalchemy import func

from engine_pg.api.resources.resource import Part, Resource
from engine_pg.api.search.inventory import DATA_CENTERS as SEARCHABLE
from engine_pg.api.types.cluster import CLUSTER
from engine_pg.api.types.data_center import DATA_CENTER
from engine_pg.api.wire.document import Document
from engine_pg.db.tx import Tx
from engine_pg.inventory import reads, tables
from engine_pg.inventory.rows import Cluster, DataCenter


async def clusters_of(tx: Tx, base: str, ids: Sequence[UUID]) -> Mapping[UUID, list[Document]]:
    """Return the clusters of data centers."""
    table = tables.cluster
    where = table.c.data_center_id.in_(list(ids))
    found: dict[UUID, list[Document]] = {}
    for row in await reads.listed(tx, Cluster, where, order=[func.lower(table.c.name)]):
        document = CLUSTER.document(row, base, "clusters")
        found.setdefault(row.data_center_id, []).append(document)
    return found


DATA_CENTERS: Final = Resource(
    kind=DataCenter,
    path="datacenters",
    subject="data_center",
    shape=DATA_CENTER,
    searchable=SEARCHABLE,
    mandatory=("name",),
    defaults={"local": False},
    parts={"clusters": Part("clusters", "cluster", clusters_of)},
)
