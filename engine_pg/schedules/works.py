"""Runs the engine's own works: each node takes what is to be run, for so many places of its own.

A run is taken in one statement and belongs to a member: when that is ended, another one takes the
run and begins it anew. So a work must bear being begun twice, and in the middle.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from engine_pg.db.database import Database
from engine_pg.db.listener import Doorbells
from engine_pg.db.tx import Record
from engine_pg.errors import EngineError, OutcomeUnknown, Unavailable
from engine_pg.schedules import runs, store
from engine_pg.supervisor import Background

log = logging.getLogger(__name__)

Body = Callable[[], Awaitable[str]]
"""A work; returns a sentence about what it did."""
Accepting = Callable[[], bool]

PLACES: Final = 4
ATTEMPTS: Final = 5
"""A run that takes its node along so often is not begun again."""
BOUND_S: Final = 3600.0
_POLL_S: Final = 5.0
_AGAIN_S: Final = 0.5
_LONGEST: Final = 1000


@dataclass(frozen=True, slots=True)
class Taken:
    """A run that this member is to run."""

    run_id: UUID
    action: str
    attempt: int

    @property
    def claim(self) -> Record:
        """What tells it from what anybody else makes of the run."""
        return {"run": self.run_id, "attempt": self.attempt}


class Works:
    """The works as one member runs them; while it is not `accepting`, it takes no further one."""

    def __init__(
        self,
        db: Database,
        bells: Doorbells,
        bodies: Mapping[str, Body],
        *,
        member_id: UUID,
        node: str,
        accepting: Accepting = lambda: True,
    ) -> None:
        self._db = db
        self._bells = bells
        self._bell = bells.bell(runs.TOPIC)
        self._bodies = bodies
        self._member: Record = {"member": member_id, "node": node, "known": list(bodies)}
        self._accepting = accepting
        self._running: set[UUID] = set()

    async def serve(self) -> None:
        """Run what is to be run until cancelled; what is then under way is given back."""
        async with Background() as background:
            while True:
                try:
                    for taken in await self.take():
                        background.start(self.run(taken), name=f"work {taken.action}")
                except EngineError as error:
                    log.info("works are not run now: %s", error)
                await self._bell.wait(_POLL_S)

    async def take(self) -> list[Taken]:
        """Take as many runs as there are places."""
        places = PLACES - len(self._running)
        if places <= 0 or not self._accepting():
            return []
        params = self._member | {"running": list(self._running), "places": places}
        found = [Taken(**row) for row in await self._db.once(runs.TAKE, params)]
        self._running.update(taken.run_id for taken in found)
        return found

    async def run(self, taken: Taken) -> None:
        """Run what was taken, and write how it ended."""
        try:
            state, outcome = await _done(taken.action, self._bodies[taken.action], taken.attempt)
            ended = await self._end(taken.claim | {"state": state, "outcome": outcome})
            if ended and ended[0]["waiting"]:
                self._bells.ring(store.TOPIC)
        except asyncio.CancelledError:
            with suppress(EngineError):  # it is another member's when this one has ended
                await self._db.once(runs.GIVE_BACK, taken.claim)
                self._bells.ring(runs.TOPIC)
            raise
        finally:
            self._running.discard(taken.run_id)
            self._bell.ring()  # there is a place

    async def _end(self, end: Record) -> list[Record]:
        """Write an end until the database has answered; to write it again does no harm."""
        while True:
            try:
                return await self._db.once(runs.END, end)
            except (Unavailable, OutcomeUnknown) as error:
                log.info("the end of a run waits for the database: %s", error)
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
    except Exception as error:  # a defect of one work is no reason to stop the others
        log.exception("the work %s failed", action)
        return "failed", f"a bug: {error!r}"[:_LONGEST]
    return "succeeded", said[:_LONGEST]
