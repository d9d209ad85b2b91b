"""Clusters."""

from __future__ import annotations

from typing import Final

from engine_pg.api.resources import lookups
from engine_pg.api.resources.resource import Resource
from engine_pg.api.search.inventory import CLUSTERS as SEARCHABLE
from engine_pg.api.types.cluster import CLUSTER
from engine_pg.inventory.rows import Cluster, DataCenter

CLUSTERS: Final = Resource(
    kind=Cluster,
    path="clusters",
    subject="cluster",
    shape=CLUSTER,
    searchable=SEARCHABLE,
    mandatory=("name", "data_center"),
    lookups={"data_center_id": lookups.of(DataCenter, "data_center_id")},
)
