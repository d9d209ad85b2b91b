"""What members see of a server: rows of members and leaders, late answers, rings that get lost.

Each life of a node has an event loop and a clock of its own, at its own rate. Whatever it asks is
on its way for a while, is carried out by the server at one instant, and its answer is on its way.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from unit.virtual import VirtualClock, VirtualLoop

from engine_pg.cluster.batch import BATCH
from engine_pg.cluster.leaders import Leadership
from engine_pg.cluster.members import END, JOIN, LOOK, RENEW, RESUME
from engine_pg.cluster.membership import DECLARE, HEARD, Lease, Membership
from engine_pg.cluster.ops import Identity
from engine_pg.db.faults import SessionSuperseded
from engine_pg.db.listener import RING
from engine_pg.errors import MemberEnded, OutcomeUnknown

LEASE = Lease()
TICK_S = 0.05


class RatedClock(VirtualClock):
    """A clock that starts anywhere and goes at its own rate."""

    def __init__(self, truth: VirtualClock, rate: float) -> None:
        self._truth, self._rate, self._offset = truth, rate, truth.now * 7 * rate

    @property
    def now(self) -> float:
        return self._truth.now * self._rate - self._offset + 50_000.0


@dataclass
class MemberRow:
    node: str
    joined_s: float
    ttl_s: float
    session: int = 1
    renewal: int = 0
    live: bool = True
    draining: bool = False
    weight: float = 1.0
    offers: tuple[str, ...] | None = None
    revision: int = 1

    def knows(self, name: str) -> bool:
        return self.offers is None or name in self.offers


@dataclass
class LeaderRow:
    member: UUID | None = None
    term: int = 0
    pinned: str | None = None
    avoid: UUID | None = None
    revision: int = 1


class SimulatedCluster:
    """The server, and the time in which everything happens."""

    def __init__(self, names: list[str]) -> None:
        self.truth = VirtualClock()
        self.members: dict[UUID, MemberRow] = {}
        self.leaders = {name: LeaderRow() for name in names}
        self.wins: list[tuple[str, UUID]] = []
        self.lives: list[Life] = []
        self.deaf = False  # rings get lost
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def at(self, delay_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.truth.now + delay_s, next(self._numbers), action))

    def tick(self) -> None:
        """Let a moment pass: what is due at the server, then every life that is not frozen."""
        self.truth.now += TICK_S
        while self._events and self._events[0][0] <= self.truth.now:
            heapq.heappop(self._events)[2]()
        for life in self.lives:
            if not (life.frozen or life.over):
                life.loop.settle()

    # Orders

    def changed(self, row: MemberRow | LeaderRow, **how: Any) -> None:
        for name, value in how.items():
            setattr(row, name, value)
        row.revision += 1

    def live(self) -> dict[UUID, MemberRow]:
        return {member: row for member, row in self.members.items() if row.live}

    def drain(self, node: str, *, on: bool) -> None:
        others = [r for r in self.live().values() if r.node != node and not r.draining]
        for row in self.live().values():
            if row.node == node and row.draining != on and (others or not on):
                self.changed(row, draining=on)
        self.ring(["members"])

    def ring(self, topics: list[str]) -> None:
        if self.deaf:
            return
        for life in self.lives:
            self.at(0.01, lambda life=life: life.over or life.bells.rung(topics))

    # Statements

    def carry_out(self, life: Life, query: Any, params: dict[str, Any]) -> dict[str, Any]:
        member = life.member_id
        if query is JOIN:
            self.members[member] = MemberRow(params["node"], self.truth.now, params["ttl_s"])
        elif query is END:
            return {"ended": self.end(params)}
        elif query is RING:
            self.ring(params["topics"])
        elif query is DECLARE:
            offers = tuple(params["offers"])
            self.changed(self.members[member], weight=params["weight"], offers=offers)
        elif query is not HEARD:
            return self.in_session(member, query, params)
        return {}

    def in_session(self, member: UUID, query: Any, params: dict[str, Any]) -> dict[str, Any]:
        row = self.members[member]
        if not row.live:
            raise MemberEnded("taken for dead")
        if query is RESUME:
            return {"reply": self.resume(member, row, params)}
        if params["session"] != row.session:
            raise SessionSuperseded("succeeded")
        return self.asked(member, row, query, params)

    def asked(self, member: UUID, row: MemberRow, query: Any, params: dict) -> dict[str, Any]:
        if query is BATCH:
            row.renewal += params["sync"]
            results = [self.operated(member, row, op) for op in params["ops"].obj]
            view = self.view(params["seen"]) if params["observe"] else None
            return {"reply": {"results": results, "acquired": None, "ring": [], "view": view}}
        assert query in (RENEW, LOOK)
        row.renewal += query is RENEW
        live = self.live()
        return {
            "complete": True,
            "members": list(live),
            "renewals": [each.renewal for each in live.values()],
        } | ({"seen": self.seen()} if query is RENEW else {})

    def operated(self, member: UUID, row: MemberRow, op: dict[str, Any]) -> dict[str, Any]:
        led = self.leaders[op["name"]]
        if op["op"] == "win":
            if led.member is not None or led.term != op["term"] or row.draining:
                return {"ok": False, "term": None}
            self.changed(led, member=member, term=led.term + 1)
            self.wins.append((op["name"], member))
            return {"ok": True, "term": led.term}
        assert op["op"] == "resign"
        if (led.member, led.term) != (member, op["term"]):
            return {"ok": False}
        self.changed(led, member=None)
        return {"ok": True}

    def resume(self, member: UUID, row: MemberRow, params: dict[str, Any]) -> dict[str, Any]:
        if row.session >= params["session"]:
            raise SessionSuperseded("succeeded")
        known = {(each["name"], each["term"]) for each in params["leaderships"].obj}
        for name, led in self.leaders.items():
            if led.member == member and (name, led.term) not in known:
                self.changed(led, member=None)
        row.session = params["session"]
        row.renewal += 1
        return {"epoch_id": 1, "grants": []}

    def end(self, params: dict[str, Any]) -> bool:
        row = self.members.get(params["member"])
        if row is None or not row.live or params["renewal"] not in (None, row.renewal):
            return False
        if not self.members[params["by"]].live:
            raise MemberEnded("who ends was ended")
        row.live = False
        for led in self.leaders.values():
            if led.member == params["member"]:
                self.changed(led, member=None)
        return True

    def seen(self) -> str:
        members = sorted((str(member), row.revision) for member, row in self.live().items())
        return f"{members}:{sum(led.revision for led in self.leaders.values())}"

    def view(self, seen: str | None) -> dict[str, Any]:
        live = self.live()
        counters = {"counters": {str(member): row.renewal for member, row in live.items()}}
        if seen is None:
            return counters
        if seen == self.seen():
            return counters | {"seen": seen}
        return counters | {
            "seen": self.seen(),
            "offers": {",".join(r.offers): list(r.offers) for r in live.values() if r.offers},
            "members": [
                {
                    "member_id": str(member),
                    "node": row.node,
                    "draining": row.draining,
                    "weight": row.weight,
                    "ttl_s": row.ttl_s,
                    "joined_s": row.joined_s,
                    "offers": None if row.offers is None else ",".join(row.offers),
                }
                for member, row in live.items()
            ],
            "leaders": [
                {
                    "name": name,
                    "member_id": led.member and str(led.member),
                    "term": led.term,
                    "pinned_node": led.pinned,
                    "avoid_member_id": led.avoid and str(led.avoid),
                }
                for name, led in self.leaders.items()
            ],
        }


class SimulatedBell:
    def __init__(self) -> None:
        self.event = asyncio.Event()

    async def wait(self, poll_s: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(poll_s):
                await self.event.wait()
        rung = self.event.is_set()
        self.event.clear()
        return rung


class SimulatedBells:
    def __init__(self, cluster: SimulatedCluster) -> None:
        self._cluster = cluster
        self._bells: list[tuple[tuple[str, ...], SimulatedBell]] = []

    def bell(self, *topics: str) -> SimulatedBell:
        bell = SimulatedBell()
        self._bells.append((topics, bell))
        return bell

    def ring(self, *topics: str) -> None:
        self._cluster.ring(list(topics))

    def ring_soon(self, *topics: str) -> None:
        self.ring(*topics)

    def rung(self, topics: list[str]) -> None:
        for wanted, bell in self._bells:
            if set(wanted) & set(topics):
                bell.event.set()


def nothing() -> None:
    pass


@dataclass(eq=False)
class SimulatedConnection:
    """Answers may be late; one that was cut gives none, and the server may have done it."""

    life: Life
    waiting: set[asyncio.Future[dict[str, Any]]] = field(default_factory=set)
    closed: bool = False

    async def ask(
        self,
        query: Any,
        params: dict[str, Any],
        bound_s: float | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> dict[str, Any]:
        if self.closed or self.life.over:
            raise OutcomeUnknown("the connection was cut")
        life, cluster = self.life, self.life.cluster
        future = life.loop.create_future()
        self.waiting.add(future)

        def tell(outcome: dict[str, Any] | Exception) -> None:
            if self.closed or future.done() or life.over:
                return
            if isinstance(outcome, Exception):
                life.loop.call_soon(lambda: future.done() or future.set_exception(outcome))
            else:
                life.loop.call_soon(lambda: future.done() or future.set_result(outcome))

        def arrive() -> None:
            outcome: dict[str, Any] | Exception
            try:
                outcome = cluster.carry_out(life, query, params)
            except (MemberEnded, SessionSuperseded) as error:
                outcome = error
            cluster.at(life.back_s, lambda: tell(outcome))

        cluster.at(life.out_s, arrive)
        (meanwhile or nothing)()
        try:
            async with asyncio.timeout(bound_s or LEASE.ttl_s):
                return await future
        except TimeoutError:
            raise OutcomeUnknown("no answer") from None
        finally:
            self.waiting.discard(future)

    def cut(self) -> None:
        self.closed = True
        for future in list(self.waiting):
            if not future.done():
                future.set_exception(OutcomeUnknown("the connection was cut"))

    async def refuse_sharing(self, _url: str) -> None:
        """There is no pooler here."""

    async def close(self) -> None:
        self.closed = True


class SimulatedDatabase:
    """What a membership asks outside of its lock session."""

    url = "simulated"

    def __init__(self, life: Life) -> None:
        self._life = life

    async def statement(self, query: Any, params: dict[str, Any]) -> None:
        await SimulatedConnection(self._life).ask(query, params)

    @asynccontextmanager
    async def write(self) -> AsyncIterator[SimulatedDatabase]:
        yield self

    async def first(self, query: Any, params: dict[str, Any]) -> dict[str, Any]:
        return await SimulatedConnection(self._life).ask(query, params)


class Life:
    """One life of a node: a real membership with singletons that tell when they work."""

    def __init__(
        self,
        cluster: SimulatedCluster,
        member_id: UUID,
        node: str,
        *,
        rate: float,
        weight: float,
        offers: list[str],
    ) -> None:
        self.cluster, self.node, self.rate, self.weight = cluster, node, rate, weight
        self.offers = offers
        self.clock = RatedClock(cluster.truth, rate)
        self.loop = VirtualLoop(self.clock)
        self.out_s = self.back_s = 0.01
        self.ending_s = 0.0  # how long a singleton takes to end
        self.frozen = self.over = self.leaving = False
        self.working: dict[str, int] = {}  # names at work here, and their terms
        self.began: list[tuple[str, int]] = []
        self.bells = SimulatedBells(cluster)
        self.connection: SimulatedConnection | None = None
        self.membership = Membership(
            SimulatedDatabase(self),
            Identity(member_id, node),
            bells=self.bells,
            lease=LEASE,
            weight=weight,
            clock=self.clock,
        )
        self.membership.session._open = self.open
        for name in offers:
            self.membership.leaders.register(name, self.singleton)
        cluster.lives.append(self)
        self.running = self.loop.create_task(self.live())

    async def open(self) -> SimulatedConnection:
        self.connection = SimulatedConnection(self)
        return self.connection

    async def live(self) -> None:
        try:
            await self.membership.join()
            await self.membership.run()
        except* (MemberEnded, OutcomeUnknown):
            pass

    async def singleton(self, leadership: Leadership) -> None:
        name = leadership.name
        assert name not in self.working, "two works for one leadership"
        self.working[name] = leadership.term
        self.began.append((name, leadership.term))
        try:
            while True:
                await asyncio.sleep(0.2)
                await leadership.until_trusted()
        finally:
            try:
                if self.ending_s:
                    await asyncio.sleep(self.ending_s)
            finally:
                del self.working[name]

    async def leave(self) -> None:
        await self.membership.leave()

    @property
    def member_id(self) -> UUID:
        return self.membership.identity.member_id

    @property
    def believes(self) -> dict[str, int]:
        """What it works on, as long as it trusts its lease; frozen or not."""
        return dict(self.working) if self.membership.session.trusted and not self.over else {}

    def die(self) -> None:
        """Stop at once; what it has sent arrives all the same."""
        self.over = True
        self.ending_s = 0.0
        while pending := asyncio.all_tasks(self.loop):
            for each in pending:
                each.cancel()
            self.loop.settle()
        self.loop.close()
