"""Where the readers of one feed stand, so that retention spares what they have not read.

Does not promise anything about safety: a reader that is passed is told so by its next read.
"""

from __future__ import annotations

import logging
from typing import Final, LiteralString

from engine_pg.clock import Clock, boottime
from engine_pg.cluster.feed.cursor import Cursor
from engine_pg.db.database import Database
from engine_pg.errors import EngineError
from engine_pg.ids import new_id

log = logging.getLogger(__name__)

PATIENCE_S: Final = 60.0
"""Who has not read for so long counts as gone."""
_PERIOD_S: Final = 5.0
RECORD: Final[LiteralString] = """
insert into feed_reader (reader_id, name, epoch_id, oldest)
values (%(reader)s, %(name)s, %(epoch)s, %(oldest)s::text::xid8)
on conflict (reader_id) do update
   set epoch_id = excluded.epoch_id, oldest = excluded.oldest, read_at = clock_timestamp()
"""


class Readers:
    """The cursors of those who read through one feed; the oldest is recorded now and then."""

    def __init__(self, db: Database, name: str, *, clock: Clock = boottime) -> None:
        self._db = db
        self._name = name
        self._clock = clock
        self._reader_id = new_id()
        self._places: dict[object, tuple[Cursor, float]] = {}
        self._recorded_at = float("-inf")

    async def stands(self, who: object, cursor: Cursor) -> None:
        """Note where a reader stands, and record it when it is time to."""
        now = self._clock()
        self._places[who] = (cursor, now)
        if now - self._recorded_at < _PERIOD_S:
            return
        self._recorded_at = now
        for each, (_, read_at) in list(self._places.items()):
            if now - read_at > PATIENCE_S:
                del self._places[each]
        oldest = min(
            (place for place, _ in self._places.values() if place.epoch_id == cursor.epoch_id),
            key=lambda place: place.oldest,
        )
        params = {"reader": self._reader_id, "name": self._name, "epoch": oldest.epoch_id}
        try:
            await self._db.once(RECORD, params | {"oldest": oldest.oldest})
        except EngineError as error:
            log.info("cannot record what was read: %s", error)

    def gone(self, who: object) -> None:
        """Forget a reader."""
        self._places.pop(who, None)
