"""Data centers, and the clusters of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

from engine_pg.api.resources.resource import Part, Resource
from engine_pg.api.search.inventory import DATA_CENTERS as SEARCHABLE
from engine_pg.api.types.cluster import CLUSTER
from engine_pg.api.types.data_center import DATA_CENTER
from engine_pg.api.wire.document import Document
from engine_pg.inventory.rows import Cluster, DataCenter
from engine_pg.replica.view import View


def clusters_of(view: View, base: str, ids: Sequence[UUID]) -> Mapping[UUID, list[Document]]:
    """Return the clusters of data centers."""
    clusters = view.of(Cluster)
    return {
        id_: [
            CLUSTER.document(row, base, "clusters")
            for row in sorted(
                clusters.by("data_center_id", id_), key=lambda row: (row.name.lower(), row.name)
            )
        ]
        for id_ in ids
    }


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
