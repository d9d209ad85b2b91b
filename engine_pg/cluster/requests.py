"""One request for locks on its way: asked, in line under a ticket, granted, or given up.

    start ─▶ under way ──granted──▶ over
              │     ▲
      refused │     │ rung, polled, or who was in the way in this process has left
              ▼     │
             waits ──time is up, or cancelled──▶ leaves (its ticket goes back) ──▶ over

Whatever becomes of the caller: an answer that nobody takes any more is handed back, and a ticket
that nobody waits under is withdrawn. No wait is without a bound, but the one that was asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from typing_extensions import override

from engine_pg.cluster.guard import Guard
from engine_pg.cluster.holds import Hold
from engine_pg.cluster.keys import Grant, LockBusy, Reason, Wanted
from engine_pg.cluster.lines import Lines
from engine_pg.cluster.ops import Asking, Op
from engine_pg.cluster.session import LockSession
from engine_pg.db.tx import Record
from engine_pg.errors import DatabaseAway, EngineError

_AGAIN_S: Final = 0.01
_SLOWEST_AGAIN_S: Final = 0.25
_MOST_AGAIN: Final = 8
"""What lasts longer than so many times is a grant that stands (of a member that does not renew, or
for an adopter): whoever removes it rings. A crowd that went on asking would load the database."""
_PROBES: Final = 6
"""How often one who does not wait asks again when somebody else asks at the same instant."""


class Desk(Protocol):
    """What a request needs of the locks of its member."""

    session: LockSession
    lines: Lines
    guard: Guard
    rings: int

    def keep(self, hold: Hold) -> None:
        """Keep a hold from now on: what is not listed at a resume is deleted there."""
        ...

    def release(self, hold: Hold) -> None:
        """Give a hold back."""
        ...

    def over(self, request: Request) -> None:
        """Forget a request, and let those behind it go ahead."""
        ...


class Request(Asking):
    """A request of one caller, who waits for `future`."""

    __slots__ = (
        "_again",
        "_desk",
        "_leaving",
        "_rings",
        "_timer",
        "_under_way",
        "_up",
        "future",
    )

    def __init__(
        self, desk: Desk, wanted: tuple[Wanted, ...], reason: Reason, number: int, *, waits: bool
    ) -> None:
        super().__init__(wanted, reason, number, desk.session.clock())
        self.tries = True
        self.waits = waits
        self.future: asyncio.Future[Hold] = asyncio.get_running_loop().create_future()
        self._desk = desk
        self._timer: asyncio.TimerHandle | None = None
        self._again = 0
        self._rings = 0
        self._under_way = self._leaving = self._up = False

    def start(self, wait_s: float | None) -> None:
        """Ask, or take a ticket at once when somebody of this process is in the way."""
        lines = self._desk.lines
        if not lines.enter(self):
            if not self.waits:
                self._desk.session.measures.refused(self.wanted[0].key.kind)
                raise LockBusy(self.wanted, self._neighbours())
            self.tries = False
            lines.stand(self)
        if wait_s == self._desk.session.ttl_s:
            self._desk.guard.add(self)
        elif wait_s is not None:
            self._timer = asyncio.get_running_loop().call_later(wait_s, self.time_is_up)
        self._ask()

    def advance(self) -> None:
        """Ask again: it may be its turn."""
        waiting = self.ticket is not None and not (self._under_way or self._leaving)
        if waiting and not self.future.done() and self._desk.lines.advance(self):
            self.tries = True
            self._ask()

    @override
    def granted(self, tokens: Sequence[int]) -> None:
        """Hold what was granted, or hand it back."""
        grants = tuple(map(_grant, self.wanted, tokens))
        hold = Hold(grants, self, self._desk.session.clock())
        self._under_way = False
        self.ticket = None
        self._desk.keep(hold)
        if self._timer is not None:
            self._timer.cancel()
        if self.future.done():
            self._desk.release(hold)
        else:
            self.future.set_result(hold)

    @override
    def refused(self, answer: Record) -> None:
        """Wait in line, ask again shortly, or tell the caller."""
        self._under_way = False
        new = self.ticket is None
        self.ticket = answer["ticket"]
        if self.ticket is not None:
            self._desk.lines.stand(self)
            if self._up or self.future.done():
                self._leave()
            elif new or self._rings != self._desk.rings:
                # A release may have come between the try and the ticket: nobody rings for it. Or
                # it rang while the answer of a try before it was still on its way.
                self.advance()
            elif answer["again"] and self._again < _MOST_AGAIN:
                self._later(self.advance)
        elif answer["again"] and self._again < _PROBES and not self.future.done():
            self._later(self._ask_again)
        else:
            self.fail(LockBusy(self.wanted, answer["holders"] or ()))

    @override
    def fail(self, error: EngineError) -> None:
        """Give up, and tell why."""
        self._under_way = False
        self._leaving = True
        if self._timer is not None:
            self._timer.cancel()
        if not self.future.done():
            self.future.set_exception(error)
            if isinstance(error, LockBusy):
                self._desk.session.measures.refused(self.wanted[0].key.kind)
        self._desk.over(self)

    def abandon(self) -> None:
        """Nobody waits any more; what is under way is handed back when it arrives."""
        if self._timer is not None:
            self._timer.cancel()
        if not self.future.cancelled() and self.future.exception() is None:
            self._desk.release(self.future.result())
        elif not (self._under_way or self._leaving):
            self._leave()

    @property
    def standing(self) -> int | None:
        """The ticket that a resume must keep; one that goes back still tells who is in the way."""
        return None if self.future.done() else self.ticket

    def _ask(self) -> None:
        self._under_way = True
        self._rings = self._desk.rings
        self._desk.session.submit(self)

    def _ask_again(self) -> None:
        if not self._leaving:
            self._ask()

    def _later(self, ask: Callable[[], None]) -> None:
        """Ask again in a moment; each time a little later."""
        delay_s = min(_AGAIN_S * 1.6**self._again, _SLOWEST_AGAIN_S)
        self._again += 1
        asyncio.get_running_loop().call_later(delay_s, ask)

    def time_is_up(self) -> None:
        """Give up, unless the caller waits no more; a while later even what is under way."""
        if self.future.done():
            return
        if self._up:  # nothing came back for long: whatever comes now is handed back
            self.future.set_exception(DatabaseAway("no writable PostgreSQL answered in time"))
            return
        self._up = True
        self._desk.guard.add(self)
        if not (self._under_way or self._leaving):
            self._leave()

    def _leave(self) -> None:
        """Give the ticket back, if there is one, and learn who was in the way."""
        self._leaving = True
        if self.ticket is None:
            self.fail(LockBusy(self.wanted, ()))
            return

        session = self._desk.session

        def withdrawn(result: Record) -> None:
            # Whose ticket came too late for the withdrawal to see it saw ours, and was not rung.
            keys = [{"kind": each.key.kind, "id": each.key.id} for each in self.wanted]
            session.submit(Op({"op": "heads", "keys": keys}, _nothing, _nothing, sync=False))
            self.fail(LockBusy(self.wanted, result["holders"] or ()))

        session.submit(Op({"op": "withdraw", "ticket": self.ticket}, withdrawn, self.fail))

    def _neighbours(self) -> list[Record]:
        """Return who of this process is in the way, as the database tells of others."""
        session = self._desk.session
        return [
            {
                "what": what,
                "kind": theirs.key.kind,
                "id": theirs.key.id,
                "mode": theirs.mode,
                "member_id": str(session.identity.member_id),
                "node": session.identity.node,
                "command_id": other.reason.command_id and str(other.reason.command_id),
                "user_name": other.reason.user_name,
                "reason": other.reason.text,
                "age_s": session.clock() - other.since,
            }
            for what, other, theirs in self._desk.lines.in_the_way(self)
        ]


def _grant(wanted: Wanted, token: int) -> Grant:
    return Grant(wanted.key, wanted.mode, token)


def _nothing(_: object) -> None:
    """Nobody waits for it: the session rings."""
