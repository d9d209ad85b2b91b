"""What a read gets: everything up to its beginning, or, while the database is away, the last view.

fresh     everything; without the database what there is, however old, and its age with it
bounded   the same, but never older than a bound
strict    everything, or nothing
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from engine_pg.configuration.live import LiveSettings
from engine_pg.errors import DatabaseAway, EngineError
from engine_pg.replica.replica import Replica
from engine_pg.replica.view import View


@dataclass(frozen=True, slots=True)
class Reading:
    """A view, and how old it may be; `stale_s` is None when it has all up to the read."""

    view: View
    stale_s: float | None = None


class Reads:
    """The reads of one node, under the cluster's policy; none waits long for the database."""

    def __init__(self, replica: Replica, settings: LiveSettings) -> None:
        self.replica: Final = replica
        self._settings = settings

    async def take(self, *, old_ok: bool = True) -> Reading:
        """Return what a read that begins now is to be answered from; raises `DatabaseAway`.

        Without `old_ok` only everything will do, whatever the policy: a write rests on it.
        """
        counts = self.replica.figures.reads
        if not self.replica.away:
            try:
                async with asyncio.timeout(self._settings.now.read_wait_s):
                    view = await self.replica.passed()
            except (TimeoutError, EngineError):
                pass  # what there is, if the policy allows
            else:
                counts["fresh"] += 1
                return Reading(view)
        view, age_s = self.replica.view, self.replica.age_s
        if view is None or not old_ok or not self._tolerates(age_s):
            counts["refused"] += 1
            raise DatabaseAway(self._refusal(view, age_s))
        counts["stale"] += 1
        return Reading(view, age_s)

    @property
    def tolerable(self) -> bool:
        """Whether reads could be answered from the view as it is, without the database."""
        return self.replica.view is not None and self._tolerates(self.replica.age_s)

    def _tolerates(self, age_s: float) -> bool:
        now = self._settings.now
        return now.read_policy == "fresh" or (
            now.read_policy == "bounded" and age_s <= now.read_staleness_s
        )

    def _refusal(self, view: View | None, age_s: float) -> str:
        if view is None:
            away = "no writable PostgreSQL answers, and " if self.replica.away else ""
            return f"{away}this node has not read the inventory yet"
        return f"no writable PostgreSQL answers; what this node knows is {age_s:.1f} s old"
