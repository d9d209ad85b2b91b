"""Runs the engine's own works: one job of the queue is one run.

A run is claimed by compare-and-swap and belongs to a member: when that is ended, whoever gets the
job begins the run anew. So a work must bear being begun twice, and in the middle.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, LiteralString
from uuid import UUID

from engine_pg.db.database import Database
from engine_pg.db.listener import Doorbells
from engine_pg.db.tx import Params, Record
from engine_pg.errors import EngineError, OutcomeUnknown, Unavailable
from engine_pg.schedules import runs, store

log = logging.getLogger(__name__)

Body = Callable[[], Awaitable[str]]
"""A work; returns a sentence about what it did."""

ATTEMPTS: Final = 5
"""A run that takes its node along so often is not begun again."""
BOUND_S: Final = 3600.0
_AGAIN_S: Final = 0.5
_LONGEST: Final = 1000


class Works:
    """The works as one member runs them."""

    def __init__(
        self,
        db: Database,
        bells: Doorbells,
        bodies: Mapping[str, Body],
        *,
        member_id: UUID,
        node: str,
    ) -> None:
        self._db = db
        self._bells = bells
        self._bodies = bodies
        self._who: Record = {"member": member_id, "node": node}
        self._running: set[UUID] = set()

    async def run(self, run_id: UUID) -> None:
        """Run what a job stands for, unless it is over or somebody is at it."""
        if run_id in self._running:
            return
        self._running.add(run_id)
        try:
            claimed = await self._insist(runs.CLAIM, self._who | {"run": run_id})
            if claimed:
                await self._claimed(run_id, claimed[0]["action"], claimed[0]["attempt"])
        finally:
            self._running.discard(run_id)

    async def _claimed(self, run_id: UUID, action: str, attempt: int) -> None:
        claim: Record = {"run": run_id, "attempt": attempt}
        body = self._bodies.get(action)
        if body is None:  # a newer node's; the safety net defers it again
            await self._insist(runs.GIVE_BACK, claim)
            return
        try:
            state, outcome = await _done(action, body, attempt)
        except asyncio.CancelledError:
            await self._insist(runs.GIVE_BACK, claim)
            raise
        ended = await self._insist(runs.END, claim | {"state": state, "outcome": outcome})
        if ended and ended[0]["waiting"]:
            self._bells.ring(store.TOPIC)

    async def _insist(self, query: LiteralString, params: Params) -> list[Record]:
        """Run a statement that may as well run twice, until the database has answered."""
        while True:
            try:
                async with self._db.write() as tx:
                    return await tx.all(query, params)
            except (Unavailable, OutcomeUnknown) as error:
                log.info("a run of a schedule waits for the database: %s", error)
            await asyncio.sleep(_AGAIN_S)


async def _done(action: str, body: Body, attempt: int) -> tuple[str, str]:
    """Return how a work ended, and what it says about it."""
    if attempt > ATTEMPTS:
        return "failed", f"it was begun {ATTEMPTS} times, and each time its node was lost"
    try:
        async with asyncio.timeout(BOUND_S):
            said = await body()
    except TimeoutError:
        return "failed", f"it took longer than {BOUND_S:g} s"
    except EngineError as error:
        log.warning("the work %s failed: %s", action, error)
        return "failed", str(error)[:_LONGEST]
    except Exception as error:  # a defect of one work is no reason to stop the worker
        log.exception("the work %s failed", action)
        return "failed", f"a bug: {error!r}"[:_LONGEST]
    return "succeeded", said[:_LONGEST]
