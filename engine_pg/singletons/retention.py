"""Trims history: ended commands and members, old events, changes that every reader has seen."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Final, LiteralString

from engine_pg.cluster.feed import FeedRetention
from engine_pg.cluster.fence import Fencing
from engine_pg.cluster.leaders import Leadership
from engine_pg.configuration.live import LiveSettings
from engine_pg.db.tx import Record

log = logging.getLogger(__name__)

NAME: Final = "retention"
_PERIOD_S: Final = 600.0
_PAUSE_S: Final = 1.0

# In slices: a long delete would hold back everything that looks at the oldest transaction.
TRIM: Final[Mapping[str, LiteralString]] = {
    "event": """
        delete from event where event_id in (
          select event_id from event
           where at < now() - %(event_days)s::float8 * interval '1 day'
           order by at limit 5000)""",
    "command": """
        delete from command where command_id in (
          select command_id from command
           where submitted_at < now() - %(command_days)s::float8 * interval '1 day'
             and ended_at is not null order by submitted_at limit 1000)""",
    "request_key": """
        delete from request_key where (user_id, key) in (
          select user_id, key from request_key
           where claimed_at < now() - %(command_days)s::float8 * interval '1 day'
           order by claimed_at limit 1000)""",
    "member": """
        delete from member m where state = 'ended'
           and ended_at < now() - %(member_days)s::float8 * interval '1 day'
           and not exists (select from lock_grant g where g.member_id = m.member_id)
           and not exists (select from leader l where l.member_id = m.member_id)
           and not exists (select from command c where c.member_id = m.member_id)""",
}


class Retention:
    """The singleton `retention`."""

    def __init__(self, fencing: Fencing, feed: FeedRetention, settings: LiveSettings) -> None:
        self._fencing = fencing
        self._feed = feed
        self._settings = settings

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
                    trimmed = await tx.run(statement, self._ages())
                full = full or trimmed >= 1000
                if trimmed:
                    log.info("trimmed %d rows of %s", trimmed, table)
            if full:
                await asyncio.sleep(_PAUSE_S)
            else:
                await self._settings.changed(_PERIOD_S)

    def _ages(self) -> Record:
        now = self._settings.now
        return {
            "event_days": now.event_retention_days,
            "command_days": now.command_retention_days,
            "member_days": now.member_retention_days,
        }
