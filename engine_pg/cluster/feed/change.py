"""What a reader of the feed gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from engine_pg.cluster.feed.cursor import Cursor
from engine_pg.db.tx import Record

Op = Literal["insert", "update", "delete"]


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one row; of one key, `change_id` rises in the order of the commits."""

    change_id: int
    topic: str
    key: str
    op: Op
    version: int | None
    at: datetime
    row: Record | None  # as it was written, without what is left out; None when it was deleted


@dataclass(frozen=True, slots=True)
class Changes:
    """What one read found.

    `cursor` is where to read on. `seen` is what the read itself saw: with `more` there is more of
    it to read, and `cursor` covers `seen` when all of it was.
    """

    changes: Sequence[Change]
    cursor: Cursor
    seen: Cursor
    start: Cursor
    more: bool

    def cursor_at(self, change: Change) -> Cursor:
        """Return where a reader stands who took the changes up to this one, and no more."""
        if not self.more and change is self.changes[-1]:
            return self.cursor
        until = self.start.until or self.seen.snapshot
        return replace(self.start, until=until, after=change.change_id)
