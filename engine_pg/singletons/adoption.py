"""Sees to it that every open command has a job: whatever became of its first one.

Ending a member puts its jobs back at once; this is the safety net behind it, and behind every way
in which a queue can lose a job.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from engine_pg.cluster.fence import Fencing
from engine_pg.cluster.leaders import Leadership
from engine_pg.commands.store import DROP_ORPHANS, REQUEUE, SWEEP_GRANTS
from engine_pg.db.listener import QUEUE, Doorbells

log = logging.getLogger(__name__)

NAME: Final = "adoption"
_PERIOD_S: Final = 1.0


class Adoption:
    """The singleton `adoption`."""

    def __init__(self, fencing: Fencing, bells: Doorbells) -> None:
        self._fencing = fencing
        self._bells = bells

    async def run(self, leadership: Leadership) -> None:
        """Look for stranded commands until cancelled."""
        while True:
            await leadership.until_trusted()
            async with self._fencing.tx(leadership.fence) as tx:
                dropped = await tx.run(DROP_ORPHANS)
                requeued = await tx.first(REQUEUE)
                await tx.run(SWEEP_GRANTS)
            if requeued:
                log.info("deferred %d stranded commands anew", len(requeued["jobs"]))
                self._bells.ring(QUEUE)
            if dropped:
                log.info("dropped %d jobs of workers that are gone", dropped)
            await asyncio.sleep(_PERIOD_S)
