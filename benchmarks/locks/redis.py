"""redis-py's own asyncio `Lock`, with a time to live, on a redis-server of the benchmark's."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from benchmarks.locks.contender import (
    PATIENCE_S,
    Contender,
    Foreign,
    Node,
    Place,
    free_ports,
    library,
    program,
)
from benchmarks.locks.servers import served

POOL: Final = 32
"""Of 8, 16, 32, 64 and 500 connections the fastest with 64 clients and with 500."""


class RedisNode:
    """One client over a pool of connections."""

    def __init__(self, client: Foreign) -> None:
        self._client = client

    async def acquire(self, key: str, wait_s: float = 0.0) -> Foreign:
        """Acquire redis-py's lock, polling as it does by default."""
        lock = self._client.lock(f"benchmark:{key}", timeout=PATIENCE_S)
        if not await lock.acquire(blocking=wait_s > 0, blocking_timeout=wait_s or None):
            raise TimeoutError(f"{key} is locked")
        return lock

    async def release(self, held: Foreign) -> None:
        """Release by redis-py's script, which compares the lock's random value."""
        await held.release()

    async def settle(self) -> None:
        """Return at once: a release was answered."""

    async def footprint(self) -> dict[str, int | None]:
        """Return what the server says of its memory and its clients."""
        info = await self._client.info()
        return {
            "memory_bytes": info["used_memory"],
            "stored_bytes": info.get("aof_current_size"),
            "connections": info["connected_clients"],
        }


@asynccontextmanager
async def _open(place: Place, fsync: str) -> AsyncGenerator[tuple[Node, Node]]:
    asyncio_redis = library("redis.asyncio")
    server = program("redis-server", "redis-server")
    (port,) = free_ports(1)
    one, two = (
        asyncio_redis.Redis.from_pool(
            asyncio_redis.BlockingConnectionPool(
                host="127.0.0.1", port=port, max_connections=POOL, timeout=PATIENCE_S
            )
        )
        for _ in range(2)
    )
    command = (
        *(server, "--port", str(port), "--bind", "127.0.0.1", "--dir", "."),
        *("--save", "", "--appendonly", "yes", "--appendfsync", fsync),
    )
    async with served(place.folder / f"redis-{fsync}", *command, ready=one.ping), one, two:
        yield RedisNode(one), RedisNode(two)


def _contender(name: str, fsync: str, durability: str) -> Contender:
    return Contender(
        name,
        what=f"redis-py's asyncio Lock with a timeout, on pools of {POOL} connections;"
        f" appendonly yes, appendfsync {fsync}",
        durability=durability,
        waiting="asks again every 0.1 s (redis-py's default)",
        open=partial(_open, fsync=fsync),
    )


REDIS: Final = _contender(
    "redis", "everysec", "written within a second: a crash of the machine forgets younger locks"
)
REDIS_ALWAYS: Final = _contender(
    "redis_always", "always", "every acquire and every release is flushed to the disk"
)
