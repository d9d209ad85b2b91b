"""What a member holds: grants taken together, and how their loss is told."""

from __future__ import annotations

import logging
from collections.abc import Callable

from engine_pg.cluster.keys import Grant, LockKey
from engine_pg.cluster.lines import Entry
from engine_pg.cluster.ops import Releasing
from engine_pg.errors import NotHeld

log = logging.getLogger(__name__)


class Hold(Releasing):
    """Grants held together until they are released, or `lost`: broken, or the member was ended."""

    __slots__ = ("_told", "entry", "lost", "since")

    def __init__(self, grants: tuple[Grant, ...], entry: Entry, since: float) -> None:
        super().__init__(grants)
        self.entry = entry
        self.since = since
        self.lost: NotHeld | None = None
        self._told: Callable[[], None] | None = None

    def grant(self, key: LockKey) -> Grant:
        """Return the grant of a key in this hold."""
        return next(grant for grant in self.grants if grant.key == key)

    def when_lost(self, tell: Callable[[], None]) -> None:
        """Have `tell` called once the grants are lost."""
        self._told = tell
        if self.lost is not None:
            tell()

    def lose(self, error: NotHeld) -> None:
        """Note that the grants are gone, and why."""
        if self.lost is None:
            self.lost = error
            if self._told is not None:
                try:
                    self._told()
                except Exception:  # its defect must not end everybody's member
                    log.exception("who holds %s can't be told that it is lost", self.grants)
