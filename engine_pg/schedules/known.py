"""What schedules of this release may run: the engine's own works, and all commands."""

from __future__ import annotations

from typing import Final

from engine_pg.commands.registry import REGISTRY
from engine_pg.schedules.declared import WORKS
from engine_pg.schedules.store import Known

KNOWN: Final = Known(WORKS, REGISTRY)
