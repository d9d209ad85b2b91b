"""The connection pool and the two kinds of plain transaction; it follows the writable server.

Does not promise: that a write through `write` is fenced. What is under a lock is written through
`engine_pg.cluster.fence`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Final, LiteralString, Self, TypeVar

import psycopg
import psycopg_pool
from psycopg.rows import DictRow

from engine_pg.clock import boottime
from engine_pg.db.faults import translated
from engine_pg.db.hosts import HostConnection
from engine_pg.db.patience import patient
from engine_pg.db.tx import Connection, Params, Record, Tx
from engine_pg.db.wire import KEEPALIVE, bounded, sever
from engine_pg.errors import DatabaseAway, EngineError, OutcomeUnknown
from engine_pg.supervisor import cancellations

log = logging.getLogger(__name__)

T = TypeVar("T")
Opening = tuple[LiteralString, Params]

READ: Final = "begin isolation level repeatable read read only"
WRITE: Final = "begin isolation level read committed read write"
_ATTEMPT_S: Final = 0.25
_BEGIN_S: Final = 1.0
"""`begin` waits for nothing: a server that is silent for so long does not hear us."""
CONFIGURE: Final = """
select set_config('idle_in_transaction_session_timeout', %(idle)s, false),
       set_config('lock_timeout', '5s', false),
       set_config('statement_timeout', '0', false),
       set_config('engine_pg.rings', %(rings)s, false)
"""
_SLICE: Final = 200
"""So many rows are loaded before others get their turn."""


class Database:
    """A pool on the PostgreSQL at `url`; transactions wait up to `away_s` for it to answer.

    With `on_commit`, which is called after every commit, triggers leave it to that to ring.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str = "engine_pg",
        pool_min: int = 1,
        pool_max: int = 10,
        bound_s: float = 15.0,
        away_s: float = 3.0,
        idle_in_transaction_s: float = 4.0,
        on_commit: Callable[[], None] | None = None,
    ) -> None:
        self.url = url
        self._on_commit = on_commit
        self._bound_s = bound_s
        self._away_s = away_s
        self._idle_ms = str(int(idle_in_transaction_s * 1000))
        self._replaced_at = 0.0
        self._pool: psycopg_pool.AsyncConnectionPool[HostConnection] = (
            psycopg_pool.AsyncConnectionPool(
                url,
                connection_class=HostConnection,
                kwargs={"application_name": name} | KEEPALIVE,
                configure=self._configure,
                min_size=pool_min,
                max_size=pool_max,
                timeout=_ATTEMPT_S,
                reconnect_timeout=0.01,  # one try each: whoever needs a connection tries again
                open=False,
            )
        )

    async def __aenter__(self) -> Self:
        await self._pool.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.close()

    @asynccontextmanager
    async def read(self) -> AsyncGenerator[Tx]:
        """Open a read-only transaction that sees one snapshot."""
        connection, _ = await self._first(partial(self._begin, READ, None))
        try:
            yield Tx(connection, bound_s=self._bound_s)
        finally:
            await self._give_up(connection)

    @asynccontextmanager
    async def write(self, opening: Opening | None = None) -> AsyncGenerator[Tx]:
        """Open a transaction that commits at the end of the block.

        `opening` is its first statement. A lost connection raises `DatabaseAway` when nothing can
        have happened and `OutcomeUnknown` when the commit was under way.
        """
        connection, _ = await self._first(partial(self._begin, WRITE, opening))
        try:
            yield Tx(connection, bound_s=self._bound_s)
        except BaseException:
            await self._give_up(connection)
            raise
        try:
            await self._commit(connection)
        finally:
            await self._pool.putconn(connection)
            if self._on_commit is not None:
                self._on_commit()

    async def statement(self, query: LiteralString, params: Params | None = None) -> None:
        """Run one statement in a transaction of its own, with nobody interested in rows."""
        async with self.write() as tx:
            await tx.run(query, params)

    async def once(
        self, query: LiteralString, params: Params | None = None, *, waits: bool = False
    ) -> list[Record]:
        """Run one statement that may as well run twice, in one round trip; nobody is rung.

        One that `waits` is not given up while nothing but its commit hangs: for what would only be
        tried again. Raises `OutcomeUnknown` when it warned: its commit may be on this server alone.
        """
        connection, cursor = await self._first(partial(self._alone, query, params, waits=waits))
        try:
            return await _rows(cursor)
        finally:
            await self._pool.putconn(connection)

    async def commit_once(self, query: LiteralString, params: Params | None = None) -> list[Record]:
        """Run one statement that may as well run twice and commits by itself; all are rung."""
        try:
            return await self.once(query, params)
        finally:
            if self._on_commit is not None:
                self._on_commit()

    async def _first(
        self, start: Callable[[HostConnection], Awaitable[T]]
    ) -> tuple[HostConnection, T]:
        """Run what comes first on a connection; again on another one when that was lost already."""
        deadline = boottime() + self._away_s
        while True:
            try:
                connection = await self._taken()
            except (psycopg_pool.PoolTimeout, psycopg_pool.TooManyRequests) as error:
                if boottime() > deadline:
                    raise DatabaseAway("no writable PostgreSQL answers") from error
                continue
            try:
                return connection, await start(connection)
            except BaseException as error:
                lost = connection.broken or connection.closed
                await self._give_up(connection)
                if not (isinstance(error, DatabaseAway) and lost and boottime() < deadline):
                    raise
                await self._doubt(connection)

    async def _taken(self) -> HostConnection:
        """Take a connection; a cancellation that comes just then, which the pool drops, counts."""
        asked = cancellations()
        connection = await self._pool.getconn(timeout=_ATTEMPT_S)
        if cancellations() > asked:
            await self._pool.putconn(connection)
            raise asyncio.CancelledError
        return connection

    async def _begin(
        self, begin: LiteralString, opening: Opening | None, connection: HostConnection
    ) -> None:
        await bounded(connection, connection.execute(begin), _BEGIN_S)
        if opening is not None:
            await bounded(connection, connection.execute(*opening), self._bound_s)

    async def _alone(
        self,
        query: LiteralString,
        params: Params | None,
        connection: HostConnection,
        *,
        waits: bool,
    ) -> psycopg.AsyncCursor[DictRow]:
        statement = connection.execute(query, params)
        with _warnings(connection) as warned:
            if waits:
                cursor = await patient(connection, statement, self._bound_s, self.url)
            else:
                cursor = await bounded(connection, statement, self._bound_s)
        if warned:
            raise OutcomeUnknown(f"the statement warned: {warned[0]}")
        return cursor

    async def _doubt(self, lost: HostConnection) -> None:
        """Replace the whole pool: what befell one idle connection befell those of its age."""
        if lost.opened_at > self._replaced_at:
            self._replaced_at = boottime()
            await self._pool.drain()

    async def _commit(self, connection: Connection) -> None:
        try:
            with _warnings(connection) as warned:
                cursor = await bounded(connection, connection.execute("commit"), self._bound_s)
        except DatabaseAway as error:
            raise OutcomeUnknown(f"the commit's answer was lost: {error}") from error
        if warned:  # a commit whose wait for a standby was cut short says so in a warning only
            raise OutcomeUnknown(f"the commit warned: {warned[0]}")
        if cursor.statusmessage != "COMMIT":
            raise EngineError("the transaction had failed and was rolled back")

    async def _give_up(self, connection: HostConnection) -> None:
        """Roll back and give the connection back; a broken one is replaced by the pool."""
        try:
            if not connection.closed:
                await bounded(connection, connection.execute("rollback"), self._bound_s)
        except EngineError:
            sever(connection)
        finally:
            await self._pool.putconn(connection)

    async def _configure(self, connection: psycopg.AsyncConnection[Any]) -> None:
        rings = "" if self._on_commit is None else "after commit"
        settings = {"idle": self._idle_ms, "rings": rings}
        await bounded(connection, connection.execute(CONFIGURE, settings), _BEGIN_S)


@contextmanager
def _warnings(connection: Connection) -> Generator[list[str]]:
    """Collect what the server warns of."""
    warned: list[str] = []

    def notice(diagnostic: psycopg.errors.Diagnostic) -> None:
        if diagnostic.severity_nonlocalized == "WARNING":
            warned.append(diagnostic.message_primary or "warning")

    connection.add_notice_handler(notice)
    try:
        yield warned
    finally:
        connection.remove_notice_handler(notice)


async def _rows(cursor: psycopg.AsyncCursor[DictRow]) -> list[Record]:
    rows: list[Record] = []
    if cursor.pgresult is None or not cursor.pgresult.nfields:
        return rows
    while some := await cursor.fetchmany(_SLICE):
        rows += some
        await asyncio.sleep(0)
    return rows


async def connect(url: str, *, name: str) -> Connection:
    """Open a connection outside of any pool."""
    parameters: dict[str, Any] = {"application_name": name} | KEEPALIVE
    try:
        return await HostConnection.connect(url, **parameters)
    except psycopg.Error as error:
        raise translated(error) from error
