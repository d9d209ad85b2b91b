"""Members for tests: real ones on a real PostgreSQL, in this process, with short leases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from engine_pg.clock import boottime
from engine_pg.cluster.leaders import Singleton
from engine_pg.cluster.membership import Lease, Membership
from engine_pg.cluster.ops import Identity
from engine_pg.db.database import Database
from engine_pg.db.listener import Doorbells
from engine_pg.errors import MemberEnded
from engine_pg.ids import new_id

LEASE = Lease(ttl_s=1.0, margin_s=0.1, heartbeat_s=0.1)


class TestNode:
    """One member and what it needs; `frozen` says whether its lock session's loop runs."""

    __test__ = False

    def __init__(self, db: Database, membership: Membership, running: asyncio.Task[None]) -> None:
        self.db = db
        self.membership = membership
        self.running = running
        self.locks = membership.locks
        self.claims = membership.claims
        self.session = membership.session

    @property
    def member_id(self):
        return self.membership.identity.member_id

    async def die(self) -> None:
        """Stop renewing without a word, as a killed process does; its sockets close."""
        self.running.cancel()
        with suppress(asyncio.CancelledError, BaseExceptionGroup):
            await self.running

    async def rows(self, query, **params):
        async with self.db.read() as tx:
            return await tx.all(query, params)


@asynccontextmanager
async def node(
    url: str,
    name: str,
    *,
    singletons: dict[str, Singleton] | None = None,
    lease: Lease = LEASE,
    weight: float = 1.0,
) -> AsyncGenerator[TestNode]:
    async with AsyncExitStack() as stack:
        db = await stack.enter_async_context(Database(url, name=name, pool_max=6))
        bells = Doorbells(url)
        membership = Membership(
            db, Identity(new_id(), name), bells=bells, lease=lease, weight=weight
        )
        for each, singleton in (singletons or {}).items():
            membership.leaders.register(each, singleton)
        await membership.join()
        async with asyncio.TaskGroup() as group:
            ringing = group.create_task(bells.run())
            running = group.create_task(swallow_end(membership.run()))
            try:
                yield TestNode(db, membership, running)
            finally:
                if not running.done():
                    await membership.leave()
                running.cancel()
                ringing.cancel()


async def swallow_end(run: Awaitable[None]) -> None:
    try:
        await run
    except* MemberEnded:
        pass


async def eventually(check: Callable[[], Awaitable[object]], bound_s: float = 10.0) -> object:
    """Wait until a check returns something true, and return that."""
    deadline = boottime() + bound_s
    while True:
        found = await check()
        if found:
            return found
        if boottime() > deadline:
            raise AssertionError("it did not happen in time")
        await asyncio.sleep(0.02)


def run(coroutine: Awaitable[object], bound_s: float = 40.0) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(bound_s):
            await coroutine

    asyncio.run(bounded())
