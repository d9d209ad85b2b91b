"""How long a member may believe in itself: counted from before each renewal was sent.

The clock goes on while the machine sleeps and is never compared with another one.
"""

from __future__ import annotations

import asyncio

from engine_pg.clock import Clock, boottime
from engine_pg.errors import LeaseLost, MemberEnded


class Trust:
    """A member's trust in its own lease; past `trusted_until` it pauses, once `ended` it stops."""

    def __init__(self, *, ttl_s: float, margin_s: float, clock: Clock = boottime) -> None:
        self.ttl_s = ttl_s
        self.trusted_until = 0.0
        self.ended: MemberEnded | None = None
        self.pauses = 0
        self._margin_s = margin_s
        self.clock = clock
        self._changed = asyncio.Event()

    @property
    def trusted(self) -> bool:
        """Whether the member may believe in itself right now."""
        return self.ended is None and self.clock() < self.trusted_until

    def check(self) -> None:
        """Raise `LeaseLost` past `trusted_until`, `MemberEnded` when the member is no more."""
        if self.ended is not None:
            raise MemberEnded(str(self.ended))
        if not self.trusted:
            raise LeaseLost("the member's lease ran out; it may resume")

    async def until_trusted(self) -> None:
        """Pause until the member may believe in itself; raise `MemberEnded` when it never will."""
        if not self.trusted and self.ended is None:
            self.pauses += 1
        while not self.trusted:
            if self.ended is not None:
                raise MemberEnded(str(self.ended))
            self._changed.clear()
            await self._changed.wait()

    def trust_from(self, sent_at: float) -> None:
        """Believe for a ttl, less the margin, from the sending of an acknowledged renewal."""
        self.trusted_until = sent_at + self.ttl_s - self._margin_s
        self._changed.set()

    def end(self, error: MemberEnded) -> None:
        """Never believe again."""
        self.ended = self.ended or error
        self._changed.set()
