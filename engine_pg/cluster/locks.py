"""Locks: thousands over the one lock session, each with a durable grant and a fencing token.

The advisory lock arbitrates; the grant row remembers who holds, under which token, for which
command and why. *Any* conflicting grant refuses, whatever the state of its member. A request is a
list of keys and gets all of them or none. Who waits has a ticket, and is served first come, first
served, across nodes: a release rings the member whose ticket is first. Tasks of one member are
separated in process, before the database is asked.

Does not promise: that a hold which is not `lost` may be acted under. Past the member's
`trusted_until` nothing may begin; fenced transactions and the drivers of hosts see to that.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from engine_pg.clock import Clock, boottime
from engine_pg.cluster.guard import Guard
from engine_pg.cluster.holds import Hold
from engine_pg.cluster.keys import (
    Grant,
    LockBusy,
    LockKey,
    Mode,
    Reason,
    Wanted,
    canonical,
)
from engine_pg.cluster.lines import Entry, Lines
from engine_pg.cluster.requests import Request
from engine_pg.cluster.session import LockSession
from engine_pg.cluster.waits import KeyMode, Party
from engine_pg.cluster.waits import Request as Waiting
from engine_pg.db.tx import Record
from engine_pg.errors import LeaseLost, Locked, MemberEnded, StaleToken

__all__ = ["Grant", "Hold", "LockBusy", "LockKey", "Locks", "Mode", "Reason", "Wanted"]

NO_REASON: Final = Reason()
_LEAST_S: Final = 0.001


class Locks:
    """The locks of one member."""

    def __init__(self, session: LockSession, *, limit: int = 5000, clock: Clock = boottime) -> None:
        self.session = session
        self.lines = Lines()
        self.guard = Guard(session.ttl_s)
        self.limit = limit
        self.rings = 0
        self._clock = clock
        self._numbers = itertools.count()
        self._holds: dict[Entry, Hold] = {}
        self._requests: dict[Request, None] = {}  # in the order in which they came
        self._count = 0  # of keys, held or asked for

    @property
    def held(self) -> list[Grant]:
        """Every grant that this member holds."""
        return [grant for hold in self._holds.values() for grant in hold.grants]

    @property
    def tickets(self) -> list[int]:
        """The tickets under which callers of this member wait."""
        return [request.standing for request in self._requests if request.standing is not None]

    @property
    def waiting(self) -> list[Waiting]:
        """The requests of this process that have no ticket yet, as the wait graph takes them."""
        now, me = self._clock(), self.session.identity
        return [
            Waiting(
                tuple(KeyMode(w.key.kind, w.key.id, w.mode) for w in request.wanted),
                Party(
                    me.member_id,
                    me.node,
                    request.reason.command_id,
                    request.reason.user_name,
                    request.reason.text,
                    now - request.since,
                ),
            )
            for request in self._requests
            if request.ticket is None
        ]

    async def acquire(
        self, *wanted: Wanted, wait_s: float | None = 0.0, reason: Reason = NO_REASON
    ) -> Hold:
        """Acquire all keys or none, in the order of arrival; `wait_s` None waits for ever.

        `wait_s` bounds the wait for a lease that ran out and for the locks together. 0 asks once:
        a ttl at most goes into the lease and the asking. Either way the answer to what is under way
        may take another ttl.

        Raises `LockBusy`, which names those in the way when the time was up, `Locked` at the
        member's limit (of what it holds and asks for), `LeaseLost` or `DatabaseAway` when the
        database did not answer (nothing is held then), and `MemberEnded`.
        """
        wishes = canonical(wanted)
        waits = wait_s is None or wait_s > 0
        bound_s = wait_s if waits else self.session.ttl_s
        if not self.session.trusted:
            bound_s = await self._until_trusted(bound_s)
        if self._count + len(wishes) > self.limit:
            raise Locked(f"this member holds or asks for its limit of {self.limit} locks")
        request = Request(self, wishes, reason, next(self._numbers), waits=waits)
        self._requests[request] = None
        self._count += len(wishes)
        try:
            request.start(bound_s)
        except BaseException:  # refused at once, or not even asked
            self._forget(request)
            raise
        try:
            hold = await request.future
        except asyncio.CancelledError:
            request.abandon()
            raise
        del request.future  # or the hold would lead back to itself: garbage that must be looked for
        return hold

    @asynccontextmanager
    async def holding(
        self, *wanted: Wanted, wait_s: float | None = 0.0, reason: Reason = NO_REASON
    ) -> AsyncGenerator[Hold]:
        """Hold keys for a block, which is cancelled, and raises `NotHeld`, when they are lost."""
        hold = await self.acquire(*wanted, wait_s=wait_s, reason=reason)
        scope = asyncio.timeout(None)
        try:
            async with scope:
                loop = asyncio.get_running_loop()
                hold.when_lost(lambda: scope.reschedule(loop.time()))
                yield hold
        except TimeoutError:
            if hold.lost is None or not scope.expired():
                raise
            raise hold.lost from None
        finally:
            self.release(hold)

    def release(self, hold: Hold) -> None:
        """Give the grants back; returns at once, the next batch carries it."""
        if self._drop(hold):
            held_s, held = self._clock() - hold.since, self.session.measures.hold_s
            for grant in hold.grants:
                held.add(grant.key.kind, held_s)
            self.session.submit(hold)
            self._advance(self.lines.leave(hold.entry))

    def adopt(self, grants: Sequence[Grant]) -> Hold:
        """Hold grants that came with a command; called while its claim is being settled."""
        wishes = tuple(Wanted(grant.key, grant.mode) for grant in grants)
        entry = Entry(wishes, Reason("adopted"), next(self._numbers), self._clock())
        self.lines.put_ahead(entry)
        hold = Hold(tuple(grants), entry, self._clock())
        self.keep(hold)
        return hold

    def forget(self, hold: Hold) -> None:
        """Drop a hold whose grants stand for an adopter."""
        if self._drop(hold):
            self._advance(self.lines.leave(hold.entry))

    def reconcile(self, records: Sequence[Record]) -> None:
        """After a resume: tell holders whose grants were broken, and ask again for all who wait."""
        known = {(each["kind"], each["id"], each["token"]): each["broken_by"] for each in records}
        for hold in list(self._holds.values()):
            for grant in hold.grants:
                where = (grant.key.kind, grant.key.id, grant.token)
                if where not in known:
                    hold.lose(StaleToken(f"{grant.key} is no longer held under {grant.token}"))
                elif known[where] is not None:
                    hold.lose(StaleToken(f"the lock of {grant.key} was broken by {known[where]}"))
        self.serve()

    def serve(self) -> None:
        """Ask again for those who stand first in line: somebody rang, or a while has passed."""
        self.rings += 1
        self._advance(self.lines.first())

    def end(self, error: MemberEnded) -> None:
        """The member is no more: everything held is lost, and nobody waits any longer."""
        for hold in list(self._holds.values()):
            hold.lose(error)
        for request in list(self._requests):
            request.fail(error)

    def keep(self, hold: Hold) -> None:
        """Keep a hold from now on: what is not listed at a resume is deleted there."""
        self._holds[hold.entry] = hold
        self._count += len(hold.grants)
        request = hold.entry
        if isinstance(request, Request):
            self._forget(request)
            waited_s, waited = hold.since - request.since, self.session.measures.wait_s
            for grant in hold.grants:
                waited.add(grant.key.kind, waited_s)

    def over(self, request: Request) -> None:
        """Forget a request, and let those behind it go ahead."""
        self._forget(request)
        self._advance(self.lines.leave(request))

    def _forget(self, request: Request) -> None:
        if request in self._requests:
            del self._requests[request]
            self.guard.drop(request)
            self._count -= len(request.wanted)

    def _drop(self, hold: Hold) -> bool:
        if self._holds.pop(hold.entry, None) is None:
            return False
        self._count -= len(hold.grants)
        return True

    def _advance(self, entries: Sequence[Entry]) -> None:
        if self.session.ended is not None:
            return  # `end` tells each: else each would fail within the failing of the one before
        for entry in entries:
            if isinstance(entry, Request):
                entry.advance()

    async def _until_trusted(self, bound_s: float | None) -> float | None:
        """Wait for the lease; return what is left of the bound for the locks."""
        since = self._clock()
        try:
            async with asyncio.timeout(bound_s):
                await self.session.until_trusted()
        except TimeoutError:
            raise LeaseLost("the member's lease is not renewed: no lock can be had") from None
        return None if bound_s is None else max(bound_s - (self._clock() - since), _LEAST_S)
