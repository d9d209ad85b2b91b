"""Members for benchmarks: what a service that uses `engine_pg.cluster` would start."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from types import MappingProxyType
from typing import Final

from engine_pg.cluster.leaders import Singleton
from engine_pg.cluster.locks import Hold, LockKey, Locks, Wanted
from engine_pg.cluster.membership import Lease, Membership
from engine_pg.cluster.ops import Identity
from engine_pg.db.database import Database
from engine_pg.db.listener import Doorbells
from engine_pg.errors import MemberEnded
from engine_pg.ids import new_id
from engine_pg.supervisor import Background

SHORT: Final = Lease(ttl_s=1.0, margin_s=0.1, heartbeat_s=0.1)
"""A lease for what is repeated many times."""
_AT_ONCE: Final = 256


@asynccontextmanager
async def member(
    url: str,
    node: str,
    *,
    lease: Lease = Lease(),
    singletons: Mapping[str, Singleton] = MappingProxyType({}),
) -> AsyncGenerator[Membership]:
    """Yield a live member; it is not ended at the end of the block, unless it leaves."""
    bells = Doorbells(url)
    async with Database(url, name=node) as db, Background() as background:
        membership = Membership(db, Identity(new_id(), node), bells=bells, lease=lease)
        for name, singleton in singletons.items():
            membership.leaders.register(name, singleton)
        await membership.join()
        background.start(bells.run(), name="doorbells")
        background.start(_live(membership), name="member")
        yield membership


async def _live(membership: Membership) -> None:
    try:
        await membership.run()
    except* MemberEnded:
        pass


@cache
def key_of(name: str) -> Wanted:
    """Return the wish for one exclusive lock; a client keeps its key, as it would keep a name."""
    return Wanted(LockKey("benchmark", name))


async def take_many(locks: Locks, count: int) -> list[Hold]:
    """Acquire so many locks, a batch's worth of them at once."""
    holds: list[Hold] = []
    names = iter(range(count))

    async def client() -> None:
        for name in names:
            holds.append(await locks.acquire(key_of(f"held {name}")))

    async with asyncio.TaskGroup() as group:
        for _ in range(min(_AT_ONCE, count)):
            group.create_task(client())
    return holds
