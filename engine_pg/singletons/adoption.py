"""Sees to it that every open command, and every run of a schedule, has a job.

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
from engine_pg.schedules.runs import REQUEUE_RUNS

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
                runs = await tx.first(REQUEUE_RUNS)
                await tx.run(SWEEP_GRANTS)
            for stranded, what in ((requeued, "commands"), (runs, "runs of schedules")):
                if stranded:
                    log.info("deferred %d stranded %s anew", len(stranded["jobs"]), what)
                    self._bells.ring(QUEUE)
            if dropped:
                log.info("dropped %d jobs of workers that are gone", dropped)
            await asyncio.sleep(_PERIOD_S)
