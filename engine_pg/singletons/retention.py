"""Trims history: ended commands and members, old events, changes that every reader has seen."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Final, LiteralString

from engine_pg.cluster.feed import FeedRetention
from engine_pg.cluster.fence import Fencing
from engine_pg.cluster.leaders import Leadership

log = logging.getLogger(__name__)

NAME: Final = "retention"
_PERIOD_S: Final = 600.0

# In slices: a long delete would hold back everything that looks at the oldest transaction.
TRIM: Final[Mapping[str, LiteralString]] = {
    "event": """
        delete from event where event_id in (
          select event_id from event where at < now() - interval '30 days'
           order by at limit 5000)""",
    "command": """
        delete from command where command_id in (
          select command_id from command
           where submitted_at < now() - interval '30 days' and ended_at is not null
           order by submitted_at limit 1000)""",
    "member": """
        delete from member m where state = 'ended' and ended_at < now() - interval '7 days'
           and not exists (select from lock_grant g where g.member_id = m.member_id)
           and not exists (select from leader l where l.member_id = m.member_id)
           and not exists (select from command c where c.member_id = m.member_id)""",
}


class Retention:
    """The singleton `retention`."""

    def __init__(self, fencing: Fencing, feed: FeedRetention) -> None:
        self._fencing = fencing
        self._feed = feed

    async def run(self, leadership: Leadership) -> None:
        """Trim until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._feed.run(leadership))
            group.create_task(self._trim(leadership))

    async def _trim(self, leadership: Leadership) -> None:
        """Trim now and then; a slice that was full is followed by the next at once."""
        while True:
            full = False
            for table, statement in TRIM.items():
                await leadership.until_trusted()
                async with self._fencing.tx(leadership.fence) as tx:
                    trimmed = await tx.run(statement)
                full = full or trimmed >= 1000
                if trimmed:
                    log.info("trimmed %d rows of %s", trimmed, table)
            await asyncio.sleep(1.0 if full else _PERIOD_S)
