"""Trims history: what the schedules `trim-...` run.

In slices, of which each is a transaction: a long delete would hold back everything that looks at
the oldest transaction. A slice is deleted once, however many nodes are at it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Final, LiteralString

from engine_pg.configuration.live import LiveSettings
from engine_pg.db.database import Database
from engine_pg.db.tx import Record
from engine_pg.schedules.runs import TRIM as TRIM_RUNS
from engine_pg.schedules.works import Body

FEED: Final = "retention"
"""The singleton that trims the change feed: it follows the readers, and is no schedule."""
_PAUSE_S: Final = 1.0
_FULL: Final = 1000

TRIM: Final[Mapping[str, LiteralString]] = {
    "events": """
        delete from event where event_id in (
          select event_id from event
           where at < now() - %(event_days)s::float8 * interval '1 day'
           order by at limit 5000)""",
    "commands": """
        delete from command where command_id in (
          select command_id from command
           where submitted_at < now() - %(command_days)s::float8 * interval '1 day'
             and ended_at is not null order by submitted_at limit 1000)""",
    "request-keys": """
        delete from request_key where (user_id, key) in (
          select user_id, key from request_key
           where claimed_at < now() - %(command_days)s::float8 * interval '1 day'
           order by claimed_at limit 1000)""",
    "members": """
        delete from member m where state = 'ended'
           and ended_at < now() - %(member_days)s::float8 * interval '1 day'
           and not exists (select from lock_grant g where g.member_id = m.member_id)
           and not exists (select from leader l where l.member_id = m.member_id)
           and not exists (select from command c where c.member_id = m.member_id)""",
    "runs": TRIM_RUNS,
}


class Retention:
    """The works that trim."""

    def __init__(self, db: Database, settings: LiveSettings) -> None:
        self._db = db
        self._settings = settings

    def works(self) -> dict[str, Body]:
        """Return them by the name that schedules call them by."""
        return {f"trim-{what}": partial(self.trim, what) for what in TRIM}

    async def trim(self, what: str) -> str:
        """Delete what is over for long enough, until nothing of it is left."""
        deleted = 0
        while True:
            async with self._db.write() as tx:
                slice_ = await tx.run(TRIM[what], self._ages())
            deleted += slice_
            if slice_ < _FULL:
                return f"deleted {deleted} {what}"
            await asyncio.sleep(_PAUSE_S)

    def _ages(self) -> Record:
        now = self._settings.now
        return {
            "event_days": now.event_retention_days,
            "command_days": now.command_retention_days,
            "member_days": now.member_retention_days,
        }
