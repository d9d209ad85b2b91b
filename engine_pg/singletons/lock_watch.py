"""Watches how full the server's table of locks is: when it is, new connections fail as well.

Past half of it there is one event, and one when it is well below again, whoever leads meanwhile:
what was told last stands in the events themselves.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from engine_pg.cluster import looks
from engine_pg.cluster.fence import Fencing
from engine_pg.cluster.leaders import Leadership
from engine_pg.cluster.looks import LockTable
from engine_pg.db.database import Database
from engine_pg.inventory.writes import NewEvent, append_event

log = logging.getLogger(__name__)

NAME: Final = "lock-watch"
ALARM: Final = 9101
CALM: Final = 9102
_PERIOD_S: Final = 10.0
_CALM_SHARE: Final = 0.4  # below the alarm's half: no event for each lock around it

LAST: Final = """
select code from (select code, at from event where code in (9101, 9102)
                  union all select code, at from event_inbox where code in (9101, 9102)) as told
 order by at desc limit 1
"""


class LockWatch:
    """The singleton `lock-watch`."""

    def __init__(self, db: Database, fencing: Fencing, *, period_s: float = _PERIOD_S) -> None:
        self._db = db
        self._fencing = fencing
        self._period_s = period_s

    async def run(self, leadership: Leadership) -> None:
        """Look until cancelled."""
        async with self._db.read() as tx:
            last = await tx.first(LAST)
        alarmed = last is not None and last["code"] == ALARM
        while True:
            await leadership.until_trusted()
            async with self._db.read() as tx:
                table = await looks.lock_table(tx)
            if table.alarming and not alarmed:
                log.warning("%d of %d locks of the server are used", table.used, table.capacity)
                await self._tell(leadership, alarm_of(table))
                alarmed = True
            elif alarmed and table.used < table.capacity * _CALM_SHARE:
                await self._tell(leadership, calm_of(table))
                alarmed = False
            await asyncio.sleep(self._period_s)

    async def _tell(self, leadership: Leadership, event: NewEvent) -> None:
        async with self._fencing.tx(leadership.fence) as tx:
            await append_event(tx, event)


def alarm_of(table: LockTable) -> NewEvent:
    """Return the event that tells of a table more than half full."""
    return NewEvent(
        code=ALARM,
        severity="alert",
        description=(
            f"PostgreSQL's table of locks is more than half full: {table.used} of"
            f" {table.capacity}. When it is full, locks and new connections fail: raise"
            " max_locks_per_transaction, or look for who holds so many (engine-pg locks)."
        ),
    )


def calm_of(table: LockTable) -> NewEvent:
    """Return the event that tells of room again."""
    text = f"PostgreSQL's table of locks has room again: {table.used} of {table.capacity} used."
    return NewEvent(code=CALM, description=text)
