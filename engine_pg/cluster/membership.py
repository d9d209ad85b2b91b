"""One member's life: join, renew, watch the others, leave, and all that lives by its lease."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from engine_pg.clock import Clock, boottime
from engine_pg.cluster.claims import Claims
from engine_pg.cluster.fence import Fencing
from engine_pg.cluster.leaders import Leaders
from engine_pg.cluster.locks import Locks
from engine_pg.cluster.measures import Measures, Standing
from engine_pg.cluster.members import Watch, end_member
from engine_pg.cluster.ops import Holdings, Identity, Owners
from engine_pg.cluster.session import LockSession
from engine_pg.cluster.topics import CHANGES, LOCKS, MEMBERS, waiters_of
from engine_pg.cluster.view import View
from engine_pg.db.database import Database
from engine_pg.db.listener import QUEUE, RING, Doorbells
from engine_pg.db.tx import Record
from engine_pg.errors import EngineError, MemberEnded

log = logging.getLogger(__name__)

_POLL_S: Final = 1.0
_LOOK_OFTEN: Final = 3
"""So many members, those that joined first, look at the others between their renewals, too.

Not where all renewals, each of which looks, are together as many looks as theirs.
"""
DECLARE: Final = "select member_declare(%(member)s, %(weight)s, %(offers)s::text[])"
HEARD: Final = "select member_drain_heard(%(member)s)"


@dataclass(frozen=True, slots=True)
class Lease:
    """How long a member is believed without a renewal, and how early it stops believing itself."""

    ttl_s: float = 5.0
    margin_s: float = 0.5
    heartbeat_s: float = 5.0 / 3

    def __post_init__(self) -> None:
        if not 0 < self.margin_s < self.ttl_s / 2:
            raise ValueError("the margin must be above 0 and below half the ttl")
        if not 0 < self.heartbeat_s <= self.ttl_s / 3:
            raise ValueError("the heartbeat must be above 0 and at most a third of the ttl")


class Membership:
    """One life of a node in the cluster."""

    def __init__(
        self,
        db: Database,
        identity: Identity,
        *,
        bells: Doorbells,
        lease: Lease = Lease(),
        weight: float = 1.0,
        measures: Measures | None = None,
        clock: Clock = boottime,
    ) -> None:
        self.identity = identity
        self.measures = measures or Measures()
        self.session = LockSession(
            db.url,
            identity,
            ttl_s=lease.ttl_s,
            margin_s=lease.margin_s,
            heartbeat_s=lease.heartbeat_s,
            owners=Owners(
                self._holdings,
                self._resumed,
                self._observed,
                self._renewed,
                ring=self._ring_waiters,
                ended=self._ended,
                changed=lambda: bells.ring_soon(CHANGES),
            ),
            measures=self.measures,
            clock=clock,
        )
        self.locks = Locks(self.session, clock=clock)
        self.claims = Claims(self.session, self.locks)
        self.fencing = Fencing(db, self.session, ring=bells.ring)
        self.leaders = Leaders(self.session, ring=lambda: bells.ring(MEMBERS), clock=clock)
        self.view = View(clock=clock)
        self._db = db
        self._bells = bells
        self._lease = lease
        self._weight = weight
        self._left = False
        self._ordered = asyncio.Event()
        self._clock = clock
        self._watch = Watch(identity.member_id, ttl_s=lease.ttl_s, clock=clock)

    @property
    def standing(self) -> Standing:
        """How this member stands at this instant, for metrics."""
        trusted_s = self.session.trusted_until - self._clock()
        waiting = len(self.locks.waiting)
        return Standing(trusted_s, len(self.locks.held), self.locks.limit, waiting)

    async def join(self) -> None:
        """Become a live member; raises `DatabaseAway` when no writable PostgreSQL answers.

        Who fails half-way leaves no member behind whom others would wait for, and no connection.
        """
        await self.session.join()
        try:
            await self.declare()
        except BaseException:
            try:
                await self.leave("could not declare itself")
            finally:
                with suppress(MemberEnded):
                    await self.session.run()  # it is over: this closes its connection
            raise
        log.info("joined as member %s", self.identity.member_id)

    async def declare(self) -> None:
        """Say what this member offers to lead, and at which weight; again when that grows."""
        params = {"weight": self._weight, "offers": sorted(self.leaders.names)}
        await self._db.statement(DECLARE, {"member": self.identity.member_id, **params})
        self._bells.ring(MEMBERS)

    @property
    def draining(self) -> bool:
        """Whether the member was told to take no new work; it goes on with what it has."""
        me = self.view.candidates.get(self.identity.member_id)
        return me is not None and me.draining

    async def run(self) -> None:
        """Live until the member ends; raises `MemberEnded` (in an exception group)."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.session.run(), name="lock session")
            group.create_task(self._look_when_rung(), name="look when rung")
            group.create_task(self._serve_when_rung(), name="serve when rung")
            group.create_task(self._undertake(), name="undertaker")
            group.create_task(self._confirm_draining(), name="confirm draining")
            group.create_task(self.leaders.run(), name="leaders")

    async def leave(self, reason: str = "stopped") -> None:
        """End this member at once, so that nobody has to wait for its lease to run out."""
        self._left = True
        await self.leaders.stop()
        self.session.leave()
        me = self.identity.member_id
        try:
            await end_member(self._db, me, renewal=None, by=me, reason=reason)
        except EngineError as error:  # the others will see the lease run out
            log.warning("could not leave: %s", error)
        else:
            self.measures.ended("left")
            await self._ring_all()

    async def _ring_all(self) -> None:
        """Ring before anything else may end: who leaves closes his doorbells next."""
        try:
            await self._db.statement(RING, {"topics": [MEMBERS, QUEUE, LOCKS, CHANGES]})
        except EngineError as error:  # the others look by themselves, later
            log.info("could not ring: %s", error)

    def _ring_waiters(self, members: Sequence[str]) -> None:
        me = str(self.identity.member_id)
        others = {waiters_of(member) for member in members if member != me}
        if others:
            self._bells.ring(*others)
        if me in members:
            self.locks.serve()

    async def _serve_when_rung(self) -> None:
        """Let those who wait ask again on a ring, and now and then: a ring may be lost."""
        bell = self._bells.bell(waiters_of(str(self.identity.member_id)), LOCKS)
        while True:
            await bell.wait(_POLL_S)
            self.locks.serve()

    async def _look_when_rung(self) -> None:
        bell = self._bells.bell(MEMBERS)
        while True:
            if await bell.wait(self._lease.ttl_s):
                self.session.observe_soon()

    async def _confirm_draining(self) -> None:
        """Say that the order to drain was heard: nothing new begins here from then on."""
        while True:
            await self._ordered.wait()
            self._ordered.clear()
            try:
                await self._db.statement(HEARD, {"member": self.identity.member_id})
            except EngineError as error:
                log.warning("cannot confirm that this node drains: %s", error)
                self._ordered.set()
                await asyncio.sleep(self._lease.heartbeat_s)

    async def _undertake(self) -> None:
        """End members whose counter stood still for a full ttl; wakes when one could be due."""
        while True:
            await asyncio.sleep(min(max(self._watch.next_due_s(), 0.005), self._lease.heartbeat_s))
            for overdue in self._watch.overdue():
                await self._end(overdue.member_id, overdue.renewal)

    async def _end(self, member_id: UUID, renewal: int) -> None:
        try:
            ended = await end_member(
                self._db,
                member_id,
                renewal=renewal,
                by=self.identity.member_id,
                reason=f"no renewal for {self._lease.ttl_s:g} s",
            )
        except MemberEnded:
            raise
        except EngineError as error:
            log.warning("could not end member %s: %s", member_id, error)
            return
        if ended:
            self.measures.ended("other")
            log.warning("ended member %s: no renewal for %g s", member_id, self._lease.ttl_s)
            await self._ring_all()
        self.session.observe_soon()

    def _holdings(self) -> Holdings:
        return Holdings(
            [grant.record for grant in self.locks.held],
            self.locks.tickets,
            self.claims.commands,
            self.leaders.held,
        )

    def _ended(self, error: MemberEnded) -> None:
        if not self._left:
            self.measures.ended("own")
        self.locks.end(error)

    def _resumed(self, grants: Sequence[Record]) -> None:
        self.locks.reconcile(grants)
        self._bells.ring(LOCKS)  # what was vacated may be what others wait for
        self._bells.ring_soon(CHANGES)

    def _observed(self, look: Record) -> None:
        before = self.draining
        changed = self.view.take(look)
        if changed:
            self.session.looks_often = self._is_to_look_often()
        self._watch.observed(self.view.counters())
        if self.draining != before:
            log.info("draining" if self.draining else "draining no more")
            if self.draining:
                self._ordered.set()
        if "seen" in look:  # what the counters alone tell of the leaders is old
            self.leaders.observed(self.view, changed=changed)

    def _is_to_look_often(self) -> bool:
        enough = round(_LOOK_OFTEN * self._lease.heartbeat_s / self.session.look_s)
        if len(self.view.candidates) >= enough:
            return False
        return self.view.is_eldest(self.identity.member_id, _LOOK_OFTEN)

    def _renewed(self, sent_at: float, acknowledged_at: float) -> None:
        self._watch.renewed(sent_at, acknowledged_at)
