"""Our locks: a durable grant with a fencing token, all of a node's over one connection."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import psycopg
from psycopg.rows import DictRow, dict_row

from benchmarks.locks.contender import Contender, Node, Place, resident_bytes
from benchmarks.members import key_of, member
from engine_pg.cluster.locks import Hold
from engine_pg.cluster.membership import Membership

ROOM: Final = 20_000
SPENT: Final = """
select m.backend_pid as pid, pg_total_relation_size('lock_grant')::bigint as stored
  from member m where m.member_id = %s
"""


class OurNode:
    """The locks of one member."""

    def __init__(self, url: str, membership: Membership) -> None:
        self._url = url
        self._membership = membership

    async def acquire(self, key: str, wait_s: float = 0.0) -> Hold:
        """Acquire a grant: durable when this returns."""
        return await self._membership.locks.acquire(key_of(key), wait_s=wait_s)

    async def release(self, held: Hold) -> None:
        """Release: the next batch carries it."""
        self._membership.locks.release(held)

    async def settle(self) -> None:
        """Take one more lock: operations are carried in order."""
        await self.release(await self.acquire("settle"))

    async def footprint(self) -> dict[str, int | None]:
        """Return the lock session's memory of its own, and the size of the table of grants."""
        opened = psycopg.AsyncConnection[DictRow].connect(
            self._url, autocommit=True, row_factory=dict_row
        )
        async with await opened as connection:
            cursor = await connection.execute(SPENT, (self._membership.identity.member_id,))
            row = await cursor.fetchone()
        assert row is not None
        memory = resident_bytes(row["pid"], "RssAnon")
        return {"memory_bytes": memory, "stored_bytes": row["stored"], "connections": 1}


def roomy(membership: Membership) -> Membership:
    """Lift the limit of locks of one node: 10,000 are to be held."""
    membership.locks.limit = ROOM
    return membership


@asynccontextmanager
async def _open(place: Place) -> AsyncGenerator[tuple[Node, Node]]:
    async with member(place.url, "one") as one, member(place.url, "two") as two:
        yield OurNode(place.url, roomy(one)), OurNode(place.url, roomy(two))


OURS: Final = Contender(
    "ours",
    what="engine_pg locks, two members",
    durability="every acquire is a synchronous commit; a release follows with the next batch",
    waiting="a ticket; the release rings whose ticket is first",
    open=_open,
)
