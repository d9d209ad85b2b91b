"""Trims the feed: what every live reader has seen, and what is too old or too much.

Does not promise: that a reader is waited for without end. One that sleeps for `Keep.most_s`, or
while more than `Keep.most_rows` are written, is passed; its next read raises `Resync`.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Final, LiteralString

from engine_pg.cluster.feed.readers import PATIENCE_S
from engine_pg.cluster.leaders import Leadership
from engine_pg.db.database import Database
from engine_pg.db.tx import Record
from engine_pg.errors import OutcomeUnknown, Unavailable

log = logging.getLogger(__name__)

_PERIOD_S: Final = 20.0
_SLICE: Final = 5000
TRIM: Final[LiteralString] = """
select feed_trim(make_interval(secs => %(age_s)s), make_interval(secs => %(most_s)s),
  %(most_rows)s::bigint, make_interval(secs => %(patience_s)s), %(slice)s::integer) as done
"""


@dataclass(frozen=True, slots=True)
class Keep:
    """How much of the feed is kept, for readers that are away: everything younger than `age_s`.

    What a live reader has not seen is kept for `most_s`; of all there are `most_rows` at most.
    """

    age_s: float = 3600.0
    most_s: float = 86400.0
    most_rows: int = 1_000_000


class FeedRetention:
    """Trims through a pool; safe from several nodes at once, and of use on one."""

    def __init__(self, db: Database, keep: Keep = Keep()) -> None:
        self._db = db
        self._keep = keep

    async def run(self, leadership: Leadership) -> None:
        """Trim until cancelled, as a singleton does."""
        while True:
            await leadership.until_trusted()
            more = False
            try:
                more = await self.trim()
            except (Unavailable, OutcomeUnknown) as error:
                log.info("cannot trim the feed: %s", error)
            await asyncio.sleep(0.1 if more else _PERIOD_S)

    async def trim(self) -> bool:
        """Delete one slice; tell whether there is more to delete."""
        keep = self._keep
        params: Record = {
            "age_s": keep.age_s,
            "most_s": keep.most_s,
            "most_rows": keep.most_rows,
            "patience_s": PATIENCE_S,
            "slice": _SLICE,
        }
        done: Record = (await self._db.once(TRIM, params))[0]["done"]
        if done["trimmed"]:
            log.info("trimmed %d changes", done["trimmed"])
        if done["passed"]:
            log.warning("%d readers of the feed were left behind: they resync", done["passed"])
        return bool(done["more"])
