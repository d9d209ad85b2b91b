"""Data centers on the wire."""

from __future__ import annotations

from typing import Final

from engine_pg.api.types.defaults import MAC_POOL_ID, VERSION
from engine_pg.api.wire.kinds import BOOLEAN, NAME, STRING, enum, integer, many, ref, struct
from engine_pg.api.wire.shape import Shape, constant, given, kept, shown

DATA_CENTER: Final = Shape(
    "data_center",
    "data_centers",
    "data_center_id",
    given("name", NAME),
    given("description", STRING),
    given("comment", STRING),
    given("local", BOOLEAN),
    shown("status", STRING, "status"),
    kept("quota_mode", enum("disabled", "audit", "enabled"), "disabled"),
    kept("storage_format", enum("v1", "v2", "v3", "v4", "v5"), "v5"),
    kept("version/major", integer(0, 99), VERSION["major"]),
    kept("version/minor", integer(0, 99), VERSION["minor"]),
    constant(
        "supported_versions",
        many("version", struct(major=integer(), minor=integer())),
        [VERSION],
    ),
    constant("mac_pool", ref("macpools"), MAC_POOL_ID),
    links=(
        "clusters", "iscsibonds", "networks", "permissions", "qoss", "quotas", "storagedomains",
    ),
)  # fmt: skip
