"""The cluster for somebody else's asyncio service: one object, one database URL.

It joins, leads, locks and fences; when its member is ended (the process was frozen, its way to the
database was cut for longer than the lease) it joins again, as a new member, by itself. What ran
under the old one is cancelled with `NotHeld`.

Does not promise: that a coroutine which swallows its cancellation stops. Its fenced writes are
refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, Final, LiteralString, Self

import psycopg

from engine_pg.clock import boottime
from engine_pg.cluster.fence import Fence, FencedTx, Fencing
from engine_pg.cluster.holding import holding
from engine_pg.cluster.leaders import Leadership, Singleton
from engine_pg.cluster.lives import live, live_until_left
from engine_pg.cluster.locks import Hold, LockKey, Reason, Wanted
from engine_pg.cluster.membership import DECLARE, Lease, Membership
from engine_pg.cluster.ops import Identity
from engine_pg.cluster.schema import SCHEMA, check
from engine_pg.db.database import Database
from engine_pg.db.listener import Doorbells
from engine_pg.db.tx import Record
from engine_pg.db.urls import libpq_url, schema_url
from engine_pg.errors import (
    DatabaseAway,
    EngineError,
    LeaseLost,
    MemberEnded,
    OutcomeUnknown,
    Unavailable,
)
from engine_pg.ids import hash64, new_id
from engine_pg.supervisor import Background

_LEAVE_S: Final = 10.0

MEMBERS: Final[LiteralString] = """
select member_id, node, address, version, draining, joined_at, renewed_at
  from member where state = 'live' order by node, joined_at
"""
LEADERS: Final[LiteralString] = """
select l.name, l.term, l.acquired_at, m.member_id, m.node
  from leader l left join member m on m.member_id = l.member_id order by l.name
"""


class Cluster:
    """One process's place in the cluster; `async with` joins it and leaves it in order."""

    def __init__(
        self,
        url: str,
        *,
        node: str,
        schema: str = SCHEMA,
        lease: Lease = Lease(),
        pool_max: int = 4,
        away_s: float = 10.0,
        address: str = "",
    ) -> None:
        self.node = node
        self._url = libpq_url(url)
        self._schema = schema
        self._place = schema_url(url, schema)
        self._lease = lease
        self._pool_max = pool_max
        self._away_s = away_s
        self._address = address
        self._singletons: dict[str, Singleton] = {}
        self._membership: Membership | None = None
        self._changed = asyncio.Event()
        self._undeclared = asyncio.Event()
        self._stop = asyncio.Event()
        self._stack = AsyncExitStack()
        self._refused: EngineError | None = None

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self._db = await stack.enter_async_context(self._database(self._place, 2))
            self._work = await stack.enter_async_context(self._database(self._url, self._pool_max))
            await check(self._db, self._schema)
            self._bells = Doorbells(self._place)
            background = await stack.enter_async_context(Background())
            background.start(self._bells.run(), name="doorbells")
            life = background.start(live(self._one_life, self._stop), name="member")
            stack.push_async_callback(self._leave, life)
            await self._current(boottime() + self._away_s)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.__aexit__(kind, error, traceback)

    @asynccontextmanager
    async def lock(
        self, *keys: LockKey | Wanted, wait_s: float | None = 0.0, reason: str | Reason = ""
    ) -> AsyncGenerator[Hold]:
        """Hold all keys, or none, during the block; `wait_s=None` waits for ever.

        Raises `LockBusy`, which names the holders, and `Unavailable` when no database answers. The
        block of a hold that is lost is cancelled and raises `NotHeld`.
        """
        wanted = [Wanted(key) if isinstance(key, LockKey) else key for key in keys]
        why = Reason(reason) if isinstance(reason, str) else reason
        async with AsyncExitStack() as stack:
            yield await self._acquire(stack, wanted, wait_s, why)

    @asynccontextmanager
    async def fenced(self, *under: Hold | Leadership) -> AsyncGenerator[FencedTx]:
        """Open a transaction that commits only while all of these are held.

        Raises `NotHeld` when they are not; `OutcomeUnknown` when the commit's answer was lost: the
        transaction is over then, look whether it happened.
        """
        membership = await self._trusted()
        fencing = Fencing(self._work, membership.session, schema=self._schema)
        async with fencing.tx(_fence(under)) as tx:
            yield tx

    async def fence_in(
        self, connection: psycopg.AsyncConnection[Any], *under: Hold | Leadership
    ) -> None:
        """Fence a transaction of your own: its first statement, in READ COMMITTED."""
        membership = await self._trusted()
        fencing = Fencing(self._work, membership.session, schema=self._schema)
        await fencing.enter(connection, _fence(under))

    def lead(self, name: str, singleton: Singleton) -> None:
        """Offer to run a coroutine function that one node at a time runs, again when it returns."""
        self._singletons[name] = singleton
        if self._membership is not None:
            self._membership.leaders.register(name, singleton)
            self._undeclared.set()

    def singleton(self, name: str) -> Callable[[Singleton], Singleton]:
        """Decorate what `lead` takes."""

        def register(singleton: Singleton) -> Singleton:
            self.lead(name, singleton)
            return singleton

        return register

    async def members(self) -> list[Record]:
        """Return the live members: id, node, address, version, since when, renewed when."""
        async with self._db.read() as tx:
            return await tx.all(MEMBERS)

    async def leaders(self) -> list[Record]:
        """Return the singletons: name, term, and the member and node that leads (None: vacant)."""
        async with self._db.read() as tx:
            return await tx.all(LEADERS)

    @property
    def trusted(self) -> bool:
        """Whether this process is a member whose lease is good right now (for a health check)."""
        return self._membership is not None and self._membership.session.trusted

    def _database(self, url: str, pool_max: int) -> Database:
        return Database(
            url,
            name=f"engine_pg {self.node}",
            pool_min=0,
            pool_max=pool_max,
            idle_in_transaction_s=self._lease.ttl_s * 0.8,
        )

    async def _one_life(self) -> None:
        membership = Membership(
            self._db,
            Identity(new_id(), self.node, self._address),
            bells=self._bells,
            lease=self._lease,
            salt=hash64(self._schema),
        )
        for name, singleton in self._singletons.items():
            membership.leaders.register(name, singleton)
        try:
            await membership.join()
        except EngineError as error:
            self._become(None, error)
            raise
        self._become(membership)
        try:
            async with asyncio.TaskGroup() as group:
                living = group.create_task(live_until_left(membership, self._stop))
                declaring = group.create_task(self._declare(membership))
                await self._stop.wait()
                await membership.leave()
                living.cancel()
                declaring.cancel()
        finally:
            self._become(None)

    def _become(self, membership: Membership | None, refused: EngineError | None = None) -> None:
        self._membership, self._refused = membership, refused
        self._changed.set()
        self._changed = asyncio.Event()

    async def _declare(self, membership: Membership) -> None:
        """Make the singletons known that were offered after the member joined."""
        while True:
            await self._undeclared.wait()
            self._undeclared.clear()
            try:
                await self._db.statement(DECLARE, {"names": sorted(self._singletons)})
            except Unavailable:
                self._undeclared.set()
                await asyncio.sleep(self._lease.heartbeat_s)
            membership.session.observe_soon()

    async def _leave(self, life: asyncio.Task[None]) -> None:
        self._stop.set()
        self._become(self._membership)
        await asyncio.wait([life], timeout=_LEAVE_S)

    async def _current(self, deadline: float) -> Membership:
        """Return the member of now, waiting for the next life while there is none."""
        while self._membership is None or self._membership.session.ended is not None:
            if self._stop.is_set():
                raise MemberEnded("the cluster was left")
            error = self._refused
            if error is not None and not isinstance(error, Unavailable | OutcomeUnknown):
                raise error
            try:
                async with asyncio.timeout(_left(deadline)):
                    await self._changed.wait()
            except TimeoutError:
                told = self._refused or "it is joining"
                raise DatabaseAway(f"not a member of the cluster: {told}") from error
        return self._membership

    async def _trusted(self) -> Membership:
        """Return the member of now, waiting while it is past its lease, for so long."""
        membership = await self._current(boottime() + self._away_s)
        try:
            async with asyncio.timeout(self._away_s):
                await membership.session.until_trusted()
        except TimeoutError as error:
            raise LeaseLost(f"no lease was renewed for {self._away_s:g} s") from error
        return membership

    async def _acquire(
        self, stack: AsyncExitStack, wanted: list[Wanted], wait_s: float | None, reason: Reason
    ) -> Hold:
        deadline = float("inf") if wait_s is None else boottime() + wait_s
        while True:
            membership = await self._current(deadline + self._away_s)
            try:
                async with asyncio.timeout(_left(deadline + self._away_s)):
                    block = holding(
                        membership.locks,
                        membership.session,
                        wanted,
                        wait_s=max(0.0, deadline - boottime()),
                        reason=reason,
                    )
                    return await stack.enter_async_context(block)
            except TimeoutError as error:
                raise DatabaseAway("no writable PostgreSQL answers") from error
            except MemberEnded:  # it held nothing yet: the next life asks again
                if self._stop.is_set() or boottime() > deadline + self._away_s:
                    raise


def _left(deadline: float) -> float | None:
    return None if deadline == float("inf") else max(0.0, deadline - boottime())


def _fence(under: tuple[Hold | Leadership, ...]) -> Fence:
    leaderships = [each for each in under if isinstance(each, Leadership)]
    if not under or len(leaderships) > 1:
        raise ValueError("a fence rests on locks, on one leadership, or on both")
    return Fence(
        grants=tuple(grant for each in under if isinstance(each, Hold) for grant in each.grants),
        leadership=(leaderships[0].name, leaderships[0].term) if leaderships else None,
    )
