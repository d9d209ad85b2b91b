"""The cluster for somebody else's asyncio service: one object, one database URL.

It joins, leads, locks and fences; when its member is ended (the process was frozen, its way to the
database was cut for longer than the lease) it joins again, as a new member, by itself. What ran
under the old one is cancelled with `NotHeld`.

Does not promise: that a coroutine which swallows its cancellation stops. Its fenced writes are
refused.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, Final, LiteralString, Self

import psycopg

from engine_pg.clock import boottime
from engine_pg.cluster.feed import Feed
from engine_pg.cluster.fence import Fence, FencedTx, Fencing
from engine_pg.cluster.leaders import Leadership, Singleton
from engine_pg.cluster.lives import Lives
from engine_pg.cluster.locks import Hold, LockKey, Reason, Wanted
from engine_pg.cluster.membership import Lease, Membership
from engine_pg.cluster.ops import Identity
from engine_pg.cluster.schema import SCHEMA, check
from engine_pg.cluster.topics import CHANGES
from engine_pg.db.database import Database
from engine_pg.db.listener import Doorbells
from engine_pg.db.tx import Record
from engine_pg.db.urls import libpq_url, schema_url
from engine_pg.errors import Invalid, MemberEnded, StaleToken
from engine_pg.ids import hash64, new_id
from engine_pg.supervisor import Background

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
        self._schema = schema
        self._lease = lease
        self._away_s = away_s
        self._address = address
        own_url = schema_url(url, schema)
        self._bells = Doorbells(own_url)
        self._db = self._database(own_url, 2)
        self._work = self._database(libpq_url(url), pool_max)
        self._singletons: dict[str, Singleton] = {}
        self._lives = Lives(self._new_member, self._singletons)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._db)
            await stack.enter_async_context(self._work)
            await check(self._db, self._schema)
            background = await stack.enter_async_context(Background())
            background.start(self._bells.run(), name="doorbells")
            life = background.start(self._lives.run(), name="member")
            stack.push_async_callback(self._lives.leave, life)
            await self._lives.current(self._away_s)
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
        if why.command_id is not None:
            raise Invalid("a command's grants stand for its adopter: here is none")
        hold = None
        try:
            async with AsyncExitStack() as stack:
                hold = await self._acquire(stack, wanted, wait_s, why)
                yield hold
        finally:
            if hold is not None:  # its release may still be on its way
                hold.lost = hold.lost or StaleToken("the lock was given back")

    @asynccontextmanager
    async def fenced(self, *under: Hold | Leadership) -> AsyncGenerator[FencedTx]:
        """Open a transaction that commits only while all of these are held.

        Raises `NotHeld` when they are not; `OutcomeUnknown` when the commit's answer was lost: the
        transaction is over then, look whether it happened.
        """
        fence = _fence(under)
        async with (await self._fencing()).tx(fence) as tx:
            yield tx

    async def fence_in(
        self, connection: psycopg.AsyncConnection[Any], *under: Hold | Leadership
    ) -> None:
        """Fence a transaction of your own: its first statement, in READ COMMITTED."""
        fence = _fence(under)
        await (await self._fencing()).enter(connection, fence)

    def lead(self, name: str, singleton: Singleton) -> None:
        """Offer to run a coroutine function that one node at a time runs, again when it returns."""
        self._singletons[name] = singleton
        self._lives.declare()

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
    def feed(self) -> Feed:
        """The change feed of this cluster's schema; each use is a reader of its own."""
        return Feed(self._db, self._bells, name=self.node)

    @property
    def trusted(self) -> bool:
        """Whether this process is a member whose lease is good right now (for a health check)."""
        return self._lives.membership is not None and self._lives.membership.session.trusted

    def _database(self, url: str, pool_max: int) -> Database:
        return Database(
            url,
            name=f"engine_pg {self.node}",
            pool_min=0,
            pool_max=pool_max,
            idle_in_transaction_s=self._lease.ttl_s * 0.8,
            on_commit=lambda: self._bells.ring_soon(CHANGES),
        )

    def _new_member(self) -> Membership:
        return Membership(
            self._db,
            Identity(new_id(), self.node, self._address, salt=hash64(self._schema)),
            bells=self._bells,
            lease=self._lease,
        )

    async def _fencing(self) -> Fencing:
        membership = await self._lives.trusted(self._away_s)
        return Fencing(self._work, membership.session, schema=self._schema)

    async def _acquire(
        self, stack: AsyncExitStack, wanted: list[Wanted], wait_s: float | None, reason: Reason
    ) -> Hold:
        deadline = float("inf") if wait_s is None else boottime() + wait_s
        while True:
            left_s = None if wait_s is None else max(0.0, deadline - boottime())
            membership = await self._lives.current((left_s or 0.0) + self._away_s)
            block = membership.locks.holding(*wanted, wait_s=left_s, reason=reason)
            try:
                return await stack.enter_async_context(block)
            except MemberEnded:  # it held nothing yet: the next life asks again
                if boottime() > deadline + self._away_s:
                    raise


def _fence(under: tuple[Hold | Leadership, ...]) -> Fence:
    leaderships = [each for each in under if isinstance(each, Leadership)]
    if not under or len(leaderships) > 1:
        raise ValueError("a fence rests on locks, on one leadership, or on both")
    for each in under:
        if isinstance(each, Hold) and each.lost is not None:
            raise StaleToken(str(each.lost))
    return Fence(
        grants=tuple(grant for each in under if isinstance(each, Hold) for grant in each.grants),
        leadership=(leaderships[0].name, leaderships[0].term) if leaderships else None,
    )
