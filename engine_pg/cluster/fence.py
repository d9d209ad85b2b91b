"""Fenced transactions: a write under a lock, a leadership or a command commits only while it holds.

To check a token and then write is not fencing. The transaction's first statement takes the holder's
gates, shared, and then looks, in statements begun after; whoever ends the member or takes a
leadership over takes the gate exclusively first. A `FencedTx` comes from nowhere else, so that an
inventory write without a fence does not type-check.

Does not promise: anything about effects outside of PostgreSQL. Those carry the token themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, LiteralString, cast
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb
from typing_extensions import override

from engine_pg.cluster.locks import Grant
from engine_pg.cluster.members import gate_of
from engine_pg.cluster.session import LockSession
from engine_pg.db.database import Database
from engine_pg.db.tx import Connection, Params, Query, Record, Tx
from engine_pg.db.wire import bounded
from engine_pg.errors import EngineError, Invalid, MemberEnded, OutcomeUnknown
from engine_pg.ids import hash32

ENTER: Final[LiteralString] = """
select fence_enter(%(member)s, %(gate)s, %(grants)s, %(leader)s::text, %(term)s::bigint,
                   %(leader_gate)s::integer, %(command)s::uuid, %(attempt)s::integer)
"""
IDLE: Final = TransactionStatus.IDLE
DRAIN: Final[LiteralString] = """
select pg_advisory_xact_lock(7001, %(gate)s), pg_logical_emit_message(true, 'engine_pg', 'drained')
"""


def leader_gate_of(name: str) -> int:
    """Return the 32-bit advisory key of a leadership's gate."""
    return hash32(name)


@dataclass(frozen=True, slots=True)
class Fence:
    """What a fenced transaction rests on; every part must hold when it begins, until it ends."""

    grants: tuple[Grant, ...] = ()
    leadership: tuple[str, int] | None = None  # name, term
    command: tuple[UUID, int] | None = None  # command, attempt


class FencedTx(Tx):
    """A transaction that holds its holder's gates; only `Fencing.tx` makes one."""

    def __init__(self, connection: Connection, *, bound_s: float) -> None:
        super().__init__(connection, bound_s=bound_s)
        self.rings: set[str] = set()
        """Doorbells to ring after the commit."""


class LateTx(FencedTx):
    """A fenced transaction that begins with its first statement, if there is one."""

    def __init__(self, begin: Callable[[], Awaitable[FencedTx]]) -> None:
        self.rings = set()
        self._begin = begin
        self._begun: FencedTx | None = None

    @property
    def begun(self) -> bool:
        """Whether there was a statement."""
        return self._begun is not None

    @override
    async def execute(self, query: Query, params: Params | None) -> psycopg.AsyncCursor[DictRow]:
        """Begin, if this is the first, and run a statement."""
        if self._begun is None:
            self._begun = await self._begin()
        return await self._begun.execute(query, params)


class Fencing:
    """Makes the fenced transactions of one member.

    `schema` qualifies its one call on the sessions of `db`, when their search path is another's.
    """

    def __init__(
        self,
        db: Database,
        session: LockSession,
        *,
        schema: str | None = None,
        ring: Callable[..., None] | None = None,
    ) -> None:
        self._db = db
        self._ring = ring
        self._session = session
        self._enter: LiteralString = ENTER if schema is None else _qualified(schema)

    @asynccontextmanager
    async def tx(self, fence: Fence) -> AsyncGenerator[FencedTx]:
        """Open a fenced transaction; commits at the end of the block.

        Raises `LeaseLost`, `MemberEnded`, `StaleToken` or `StaleTerm` before a write,
        and `OutcomeUnknown` when the commit's answer was lost: it is then certain at least that the
        transaction is over, so that looking settles it.
        """
        self._session.check()
        try:
            async with self._db.write((self._enter, self._params(fence))) as tx:
                fenced = FencedTx(tx.connection, bound_s=self._session.ttl_s)
                yield fenced
                self._session.check()
        except OutcomeUnknown:
            await self._drain()
            raise
        if fenced.rings and self._ring is not None:
            self._ring(*fenced.rings)

    @asynccontextmanager
    async def late(self, fence: Fence) -> AsyncGenerator[LateTx]:
        """Open a fenced transaction when there is a first statement; else nothing happens."""
        async with AsyncExitStack() as stack:
            tx = LateTx(lambda: stack.enter_async_context(self.tx(fence)))
            yield tx
        if tx.rings and self._ring is not None:
            self._ring(*tx.rings)

    async def once(self, fence: Fence, query: LiteralString, params: Record) -> list[Record]:
        """Run one statement that enters the fence itself, and may run twice, in one round trip.

        What it does is done by volatile functions, after it: they look in statements begun later.
        """
        self._session.check()
        return await self._db.commit_once(query, params | self._params(fence))

    async def enter(self, connection: psycopg.AsyncConnection[Any], fence: Fence) -> None:
        """Fence a transaction of somebody else's; its first statement, in READ COMMITTED."""
        self._session.check()
        if connection.autocommit and connection.info.transaction_status == IDLE:
            raise Invalid("a fence ends with its transaction: begin one first")
        statement = connection.execute(self._enter, self._params(fence))
        await bounded(connection, statement, self._session.ttl_s)

    def _params(self, fence: Fence) -> dict[str, Any]:
        name, term = fence.leadership or (None, None)
        command, attempt = fence.command or (None, None)
        return {
            "member": self._session.identity.member_id,
            "gate": gate_of(self._session.identity.member_id),
            "grants": Jsonb(_records(fence.grants)),
            "leader": name,
            "term": term,
            "leader_gate": None if name is None else leader_gate_of(name),
            "command": command,
            "attempt": attempt,
        }

    async def _drain(self) -> None:
        """Wait until no backend holds our gate: a commit in doubt is then decided, either way.

        The message makes the wait a write: only an acknowledged commit shows that what is then
        seen is on the standby as well, and not on a primary that was cut off. Nobody who froze
        holds the wait up for long: the transactions of a `Database` may not be idle.
        """
        params = {"gate": gate_of(self._session.identity.member_id)}
        while True:
            if self._session.ended is not None:
                raise self._session.ended
            try:
                await self._db.statement(DRAIN, params)
            except MemberEnded:
                raise
            except EngineError:
                await asyncio.sleep(0.1)
            else:
                return


def _qualified(schema: str) -> LiteralString:
    call = sql.SQL(ENTER.replace("fence_enter", "{}.fence_enter"))
    return cast("LiteralString", call.format(sql.Identifier(schema)).as_string(None))


def _records(grants: Sequence[Grant]) -> list[Record]:
    return [grant.record for grant in grants]
