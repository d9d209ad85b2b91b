"""What other types refer to and of which there is exactly one."""

from __future__ import annotations

from typing import Final

from engine_pg.ids import derived_id

VERSION: Final = {"major": 4, "minor": 7}
PRODUCT_VERSION: Final = {
    "major": 4,
    "minor": 5,
    "build": 6,
    "revision": 0,
    "full_version": "4.5.6",
}
MAC_POOL_ID: Final = derived_id("mac_pool", "Default")
SCHEDULING_POLICY_ID: Final = derived_id("scheduling_policy", "evenly_distributed")
