"""`engine-pg serve`: one node, for production."""

from __future__ import annotations

import uvloop

from engine_pg.cli.logs import set_up_logging
from engine_pg.node import Node
from engine_pg.settings import load_settings


def serve() -> None:
    """Run one engine node, configured by ENGINE_* variables or ENGINE_CONFIG_FILE."""
    settings = load_settings()
    set_up_logging(settings.log_level, settings.log_format, node=settings.node)

    async def run() -> None:
        await Node(settings).run()

    uvloop.run(run())
