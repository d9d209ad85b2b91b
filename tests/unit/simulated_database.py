"""An honest little model of what the database answers to lock sessions, one step at a time.

A statement is *executed* (its advisory locks are taken and given back, at once and for all to see),
then *committed* (its rows become visible), then *answered*. Between any two steps others take
theirs, and a backend may be killed: what is not committed is gone, and so are its advisory locks.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from engine_pg.clock import Clock
from engine_pg.cluster.batch import Batch
from engine_pg.cluster.keys import Grant, LockKey, Mode, Wanted
from engine_pg.cluster.members import RESUME
from engine_pg.cluster.ops import Asking, Op, Releasing
from engine_pg.cluster.session import LockSession
from engine_pg.db.faults import SessionSuperseded
from engine_pg.errors import EngineError, MemberEnded, OutcomeUnknown

Place = tuple[LockKey, int]  # a key, and a token or a ticket


@dataclass(frozen=True)
class Row:
    mode: Mode
    member: UUID
    held: bool = False


@dataclass
class Rows:
    grants: dict[Place, Row] = field(default_factory=dict)
    tickets: dict[Place, Row] = field(default_factory=dict)

    def copy(self) -> Rows:
        return Rows(dict(self.grants), dict(self.tickets))

    def granted(self, wanted: Wanted) -> list[Place]:
        return [p for p, row in self.grants.items() if clash(wanted, p[0], row.mode)]

    def awaited(self, wanted: Wanted, ticket: int | None) -> list[Place]:
        return [
            place
            for place, row in self.tickets.items()
            if clash(wanted, place[0], row.mode) and (ticket is None or place[1] < ticket)
        ]

    def heads(self, keys: Sequence[LockKey]) -> set[UUID]:
        return {
            row.member
            for place, row in self.tickets.items()
            if place[0] in keys and not self.awaited(Wanted(place[0], row.mode), place[1])
        }


def clash(wanted: Wanted, key: LockKey, mode: Mode) -> bool:
    return wanted.key == key and wanted.conflicts(Wanted(key, mode))


@dataclass(eq=False)
class Backend:
    """One connection; its client may be gone (`client`) before the server knows (`alive`)."""

    number: int
    database: SimulatedDatabase
    alive: bool = True
    client: bool = True
    statements: deque[Statement] = field(default_factory=deque)  # the first one is carried out
    advisory: Counter[tuple[LockKey, Mode]] = field(default_factory=Counter)

    @property
    def statement(self) -> Statement | None:
        return self.statements[0] if self.statements else None

    async def close(self) -> None:
        self.client = False
        for each in self.statements:
            tell(each, OutcomeUnknown("the connection was closed"))

    async def ask(self, query: Any, params: Any) -> Any:
        assert query is RESUME
        listed = {"held": params["held"].obj, "tickets": params["tickets"]}
        member, number = params["member"], params["session"]
        return {"reply": await self.database.ask(self, member, number, None, listed)}


@dataclass(eq=False)
class Statement:
    backend: Backend
    member: UUID
    number: int
    batch: Batch | None  # None: a resume
    listed: dict[str, Any]
    future: asyncio.Future[dict[str, Any]]
    stage: str = "sent"
    reply: dict[str, Any] = field(default_factory=dict)
    error: EngineError | None = None
    removed: Rows = field(default_factory=Rows)
    added: Rows = field(default_factory=Rows)


class SimulatedDatabase:
    """Rows, backends, members; each public method is one step of the server or of the network."""

    def __init__(self) -> None:
        self.rows = Rows()
        self.backends: list[Backend] = []
        self.sessions: dict[UUID, int] = {}  # live members, and the numbers of their lock sessions
        self.current: dict[UUID, Backend] = {}
        self.lost_rings = False
        self._numbers = itertools.count(1)

    # Steps

    def at(self, stage: str) -> list[Statement]:
        found = [b.statement for b in self.backends if b.alive and b.statement is not None]
        return [s for s in found if s.stage == stage and (stage != "sent" or self._may_run(s))]

    def execute(self, statement: Statement) -> None:
        """Run a statement up to its commit."""
        statement.stage = "executed"
        try:
            if self.sessions.get(statement.member) is None:
                raise MemberEnded("no such member")
            if statement.batch is None:
                self._resume(statement)
            else:
                if self.sessions[statement.member] != statement.number:
                    raise SessionSuperseded("the session was succeeded")
                self._batch(statement, statement.batch)
        except EngineError as error:
            statement.error = error
            statement.stage = "committed"

    def commit(self, statement: Statement) -> None:
        statement.stage = "committed"
        for kind in ("grants", "tickets"):
            rows = getattr(self.rows, kind)
            for place in getattr(statement.removed, kind):
                rows.pop(place, None)
            rows.update(getattr(statement.added, kind))
        if statement.batch is None:
            self.sessions[statement.member] = statement.number
            self.current[statement.member] = statement.backend
            statement.reply["grants"] = [
                {"kind": key.kind, "id": key.id, "token": token, "broken_by": None}
                for (key, token), row in self.rows.grants.items()
                if row.member == statement.member
            ]

    def answer(self, statement: Statement) -> None:
        statement.backend.statements.popleft()
        if not statement.backend.client:
            self.lost_rings |= bool(statement.reply.get("ring"))
            self.kill(statement.backend)
        elif statement.error is not None:
            # Any error ends a lock session; what was sent behind it may be carried out meanwhile.
            statement.backend.client = False
            tell(statement, statement.error)
            if not statement.backend.statements:
                self.kill(statement.backend)
        else:
            tell(statement, statement.reply)

    def cut(self, backend: Backend) -> None:
        """Cut the connection; the server goes on with what it has, not knowing yet."""
        backend.client = False
        self.lost_rings = True
        for each in backend.statements:
            tell(each, OutcomeUnknown("the connection was cut"))

    def kill(self, backend: Backend) -> None:
        """End a backend: what it had not committed, and its advisory locks, are gone."""
        statements = list(backend.statements)
        backend.statements.clear()
        backend.alive = backend.client = False
        backend.advisory.clear()
        for each in statements:
            self.lost_rings = True
            tell(each, OutcomeUnknown("terminated by the administrator"))

    def may_end(self, member: UUID) -> bool:
        """Tell whether the member's row can be had: it is a resume's until that commits."""
        busy = [each.backend for each in self.at("executed") if each.member == member]
        return busy in ([], [self.current[member]])

    def end(self, member: UUID) -> None:
        """End a member, and with it its backend first of all."""
        self.kill(self.current[member])
        del self.sessions[member]
        for rows in (self.rows.grants, self.rows.tickets):
            for place in [place for place, row in rows.items() if row.member == member]:
                del rows[place]

    def restart(self) -> None:
        """Stop the server at once and start it again."""
        for backend in self.backends:
            if backend.alive:
                self.kill(backend)

    # What sessions call

    def connect(self) -> Backend:
        self.backends = [b for b in self.backends if b.alive]
        self.backends.append(Backend(next(self._numbers), self))
        return self.backends[-1]

    def join(self, member: UUID, backend: Backend) -> None:
        self.sessions[member] = 1
        self.current[member] = backend

    async def ask(
        self, backend: Backend, member: UUID, number: int, batch: Batch | None, listed: dict
    ) -> dict[str, Any]:
        if not (backend.alive and backend.client):
            raise OutcomeUnknown("the connection is closed")
        future = asyncio.get_running_loop().create_future()
        backend.statements.append(Statement(backend, member, number, batch, listed, future))
        return await future

    # The server

    def _may_run(self, statement: Statement) -> bool:
        """A statement waits for the member's row while another session's has it."""
        return not any(s.member == statement.member for s in self.at("executed"))

    def _try(self, backend: Backend, key: LockKey, mode: Mode) -> bool:
        for other in self.backends:
            if other is not backend and other.alive:
                for (held_key, held_mode), count in other.advisory.items():
                    if count and clash(Wanted(key, mode), held_key, held_mode):
                        return False
        backend.advisory[key, mode] += 1
        return True

    def _seen(self, statement: Statement) -> Rows:
        """What the statement sees: what is committed, and what it did itself."""
        seen = self.rows.copy()
        for kind in ("grants", "tickets"):
            rows = getattr(seen, kind)
            for place in getattr(statement.removed, kind):
                rows.pop(place, None)
            rows.update(getattr(statement.added, kind))
        return seen

    def _batch(self, statement: Statement, batch: Batch) -> None:
        ring: set[UUID] = set()
        releases = [g for part in batch.parts if isinstance(part, Releasing) for g in part.grants]
        ring |= self._release(statement, releases)
        asking = [part for part in batch.parts if isinstance(part, Asking)]
        tokens, refused, heads = self._acquire(statement, asking)
        ring |= heads
        results = []
        for op in (part for part in batch.parts if isinstance(part, Op)):
            if op.body["op"] == "heads":
                keys = [LockKey(each["kind"], each["id"]) for each in op.body["keys"]]
                ring |= self._seen(statement).heads(keys)
            else:
                assert op.body["op"] == "withdraw"
                self._drop_ticket(statement, op.body["ticket"])
            results.append({"ok": True, "holders": None})
        statement.reply = {
            "results": results,
            "acquired": {"tokens": tokens, "refused": refused},
            "ring": sorted(str(member) for member in ring),
            "view": {"seen": ""},
        }

    def _release(self, statement: Statement, grants: Sequence[Grant]) -> set[UUID]:
        for grant in grants:
            row = self.rows.grants.get((grant.key, grant.token))
            if row is None or row.member != statement.member:
                continue
            if (grant.key, grant.token) in statement.removed.grants:
                continue
            statement.removed.grants[grant.key, grant.token] = row
            if row.held:
                self._unlock(statement.backend, grant.key, row.mode)
        return self._seen(statement).heads([grant.key for grant in grants])

    def _unlock(self, backend: Backend, key: LockKey, mode: Mode) -> None:
        assert backend.advisory[key, mode] > 0, "WARNING: you don't own a lock of this kind"
        backend.advisory[key, mode] -= 1

    def _acquire(
        self, statement: Statement, asking: Sequence[Asking]
    ) -> tuple[list[int | None], list[dict[str, Any]], set[UUID]]:
        got = [
            [each.tries and self._try(statement.backend, w.key, w.mode) for w in each.wanted]
            for each in asking
        ]
        seen = self._seen(statement)
        fine = [
            all(mine)
            and not any(seen.granted(w) or seen.awaited(w, each.ticket) for w in each.wanted)
            for each, mine in zip(asking, got, strict=True)
        ]
        tokens: list[int | None] = []
        for each, granted in zip(asking, fine, strict=True):
            for wanted in each.wanted:
                tokens.append(next(self._numbers) if granted else None)
                if granted:
                    place = (wanted.key, tokens[-1])
                    statement.added.grants[place] = Row(wanted.mode, statement.member, held=True)
            if granted and each.ticket is not None:
                self._drop_ticket(statement, each.ticket)
        return (tokens, *self._refuse(statement, asking, got, fine))

    def _refuse(
        self,
        statement: Statement,
        asking: Sequence[Asking],
        got: list[list[bool]],
        fine: list[bool],
    ) -> tuple[list[dict[str, Any]], set[UUID]]:
        refused = [(n, e, mine) for n, (e, mine) in enumerate(zip(asking, got, strict=True), 1)]
        refused = [each for each, granted in zip(refused, fine, strict=True) if not granted]
        undone: list[Wanted] = []
        for _, each, mine in refused:
            for wanted, mine_too in zip(each.wanted, mine, strict=True):
                if mine_too:
                    self._unlock(statement.backend, wanted.key, wanted.mode)
                    undone.append(wanted)
        answers = []
        for number, each, mine in refused:
            seen = self._seen(statement)
            again = each.tries and any(
                bool(seen.granted(w))
                if mine_too
                else not (seen.granted(w) or seen.awaited(w, each.ticket))
                for w, mine_too in zip(each.wanted, mine, strict=True)
            )
            ticket = each.ticket
            if each.waits and ticket is None:
                ticket = next(self._numbers)
                for wanted in each.wanted:
                    row = Row(wanted.mode, statement.member)
                    statement.added.tickets[wanted.key, ticket] = row
            answers.append({"request": number, "ticket": ticket, "again": again, "holders": None})
        seen = self._seen(statement)
        heads = {
            row.member
            for wanted in undone
            for (key, ticket), row in seen.tickets.items()
            if row.member != statement.member
            and clash(wanted, key, row.mode)
            and not seen.awaited(Wanted(key, row.mode), ticket)
        }
        return answers, heads

    def _drop_ticket(self, statement: Statement, ticket: int) -> None:
        mine = [
            place
            for place, row in self._seen(statement).tickets.items()
            if place[1] == ticket and row.member == statement.member
        ]
        for place in mine:
            statement.added.tickets.pop(place, None)
            statement.removed.tickets[place] = Row(Mode.SHARED, statement.member)

    def _resume(self, statement: Statement) -> None:
        member = statement.member
        if self.sessions[member] >= statement.number:
            raise SessionSuperseded("the session was succeeded")
        predecessor = self.current[member]
        if predecessor is not statement.backend and predecessor.alive:
            self.kill(predecessor)
        held, tickets = statement.listed["held"], statement.listed["tickets"]
        known = {(each["kind"], each["id"], each["token"]) for each in held}
        for place, row in mine(self.rows.grants, member):
            key, token = place
            if (key.kind, key.id, token) in known:
                held_now = self._try(statement.backend, key, row.mode)
                statement.added.grants[place] = Row(row.mode, member, held=held_now)
            else:
                statement.removed.grants[place] = row
        for place, row in mine(self.rows.tickets, member):
            if place[1] not in tickets:
                statement.removed.tickets[place] = row


def mine(rows: dict[Place, Row], member: UUID) -> Iterator[tuple[Place, Row]]:
    return ((place, row) for place, row in list(rows.items()) if row.member == member)


def tell(statement: Statement, outcome: dict[str, Any] | EngineError) -> None:
    if statement.future.done():
        return
    if isinstance(outcome, EngineError):
        statement.future.set_exception(outcome)
        statement.future.exception()  # nobody need wait for it any more
    else:
        statement.future.set_result(outcome)


class SimulatedSession(LockSession):
    """The real lock session, whose statements go to a simulated database."""

    def __init__(self, database: SimulatedDatabase, *, clock: Clock, **how: Any) -> None:
        super().__init__("simulated", clock=clock, **how)
        sent = itertools.count()
        self._pace.overlaps = lambda queued: queued > 0 and next(sent) % 2 == 0
        self.database = database

    async def join(self) -> None:
        sent_at = self.clock()
        backend = self.database.connect()
        self.database.join(self.identity.member_id, backend)
        self._connection = backend
        self._renewed(sent_at, self._heartbeats.period_s)

    async def _open(self) -> Any:
        return self.database.connect()

    async def _beat(self, *, renew: bool) -> Any:
        return await self._ask_batch(Batch([]), sync=renew)

    async def _ask_batch(self, batch: Batch, **_how: bool) -> Any:
        if self._connection is None:
            raise OutcomeUnknown("there is no session")
        batch.params()  # what cannot be written fails here
        member, backend = self.identity.member_id, self._connection
        return await self.database.ask(backend, member, self._number, batch, {})
