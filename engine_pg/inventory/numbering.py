"""The public numbers of events: given after their commit, so that none is seen before a lower one.

Who writes an event puts it into `event_inbox` and waits for nobody. `events_number` moves what is
committed there to `event`, one mover at a time; whoever reads events moves first, so that he sees
all that was committed before.

Does not promise: that numbers have no gaps, or follow the events' times.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final, LiteralString

from engine_pg.cluster.topics import CHANGES
from engine_pg.db.database import Database
from engine_pg.db.listener import Doorbells
from engine_pg.db.sharing import Shared
from engine_pg.errors import EngineError

log = logging.getLogger(__name__)

EVENTS: Final = "events"
"""The doorbell of those who give numbers."""
_POLL_S: Final = 2.0
PENDING: Final[LiteralString] = "select exists (select from event_inbox) as pending"
# The message makes it a commit that a standby has acknowledged, whether there is an event or not.
NUMBER: Final[LiteralString] = """
select events_number() as numbered, pg_logical_emit_message(true, 'engine_pg', 'numbered')
"""


class Numbering:
    """One node's part in it: soon after its own events, and whenever somebody is about to read."""

    def __init__(self, db: Database, bells: Doorbells) -> None:
        self._db = db
        self._bells = bells
        self._bell = bells.bell(EVENTS)
        self._shared = Shared(self._move)

    async def caught_up(self) -> None:
        """Return when all events that were committed before have their numbers."""
        await self._shared.done()

    async def run(self) -> None:
        """Give numbers on each ring, and to what others left behind; until cancelled."""
        while True:
            await self._bell.wait(_POLL_S)
            try:
                if (await self._db.once(PENDING))[0]["pending"]:
                    await self._shared.done()
            except EngineError as error:
                log.info("events get no numbers now: %s", error)
                await asyncio.sleep(_POLL_S / 4)

    async def _move(self) -> None:
        rows = await self._db.once(NUMBER)
        if rows[0]["numbered"]:
            self._bells.ring(CHANGES)
