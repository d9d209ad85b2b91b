"""How long after a crash of the database all held locks are held again, under the same tokens."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final, LiteralString

import psycopg

from benchmarks.ground import COMMIT, Ground, Missing
from benchmarks.locks.rounds import percentile
from benchmarks.members import member, take_many
from engine_pg.clock import boottime
from engine_pg.cluster.membership import Membership
from engine_pg.db.embedded import EmbeddedPostgres

HELD: Final = 1000
_BOUND_S: Final = 60.0
_POLL_S: Final = 0.002
SESSION: Final = "select session_number from member where member_id = %s"
TOKENS: Final = "select token from lock_grant where member_id = %s"
ADVISORY: Final = """
select count(*) from pg_locks l join member m on m.backend_pid = l.pid
 where m.member_id = %s and l.locktype = 'advisory' and l.granted and l.objsubid = 1
"""


async def resumes(ground: Ground, count: int) -> dict[str, Any]:
    """Crash and start the database again and again under a member that holds 1,000 locks."""
    if ground.server is None:
        raise Missing("a server that is given is not ours to crash: unset ENGINE_DATABASE_URL")
    with ground.database() as url:
        async with member(url, "resumes") as membership:
            await take_many(membership.locks, HELD)
            times_s = [await _resumed(url, ground.server, membership) for _ in range(count)]
    return {
        "count": count,
        "held": HELD,
        "resume_s": [round(each, 4) for each in times_s],
        "median_s": percentile(times_s, 50),
        "worst_s": percentile(times_s, 100),
    }


async def _resumed(url: str, server: EmbeddedPostgres, membership: Membership) -> float:
    member_id = membership.identity.member_id
    tokens = sorted(grant.token for grant in membership.locks.held)
    with psycopg.connect(url, autocommit=True) as connection:
        before = _one(connection, SESSION, member_id)
    server.stop("immediate")
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.to_thread(server.start))
        seen = group.create_task(asyncio.to_thread(_watch, url, member_id, before))
    accepts_at, resumed_at, found, advisory = seen.result()
    if found != tokens or advisory < HELD:
        raise AssertionError(f"{len(found)} grants, {advisory} advisory locks after the restart")
    return max(0.0, resumed_at - accepts_at)  # it may be faster than who watches


def _watch(url: str, member_id: object, before: int) -> tuple[float, float, list[int], int]:
    """Return when the server accepted a write, when the resume was there, and what it holds."""
    deadline = boottime() + _BOUND_S
    while True:
        try:
            connection = psycopg.connect(url, autocommit=True, connect_timeout=2)
            connection.execute(COMMIT)
            break
        except psycopg.OperationalError:
            _pause(deadline)
    accepts_at = boottime()
    with connection:
        while _one(connection, SESSION, member_id) == before:
            _pause(deadline)
        resumed_at = boottime()
        tokens = [row[0] for row in connection.execute(TOKENS, (member_id,))]
        return accepts_at, resumed_at, sorted(tokens), _one(connection, ADVISORY, member_id)


def _pause(deadline: float) -> None:
    if boottime() > deadline:
        raise TimeoutError("the member did not resume")
    time.sleep(_POLL_S)


def _one(connection: psycopg.Connection[Any], query: LiteralString, member_id: object) -> int:
    row = connection.execute(query, (member_id,)).fetchone()
    assert row is not None
    return row[0]
