"""What the heartbeats of a quiet cluster cost the database, in percent of one processor.

All of the database's processes are counted, by the scheduler's own account, against the same
server idle. The members renew, watch each other and hold their leaderships; nothing else happens.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, LiteralString

import psycopg

from benchmarks.ground import Ground, Missing
from benchmarks.locks.children import child
from benchmarks.locks.member import Orders
from engine_pg.clock import boottime
from engine_pg.cluster.membership import Lease

MEMBERS: Final = 32
LEADERSHIPS: Final = 200
_PROCESSES: Final = 4
_BOUND_S: Final = 120.0
_STEADY_S: Final = 3.0
LED: Final = """
select count(member_id), coalesce(sum(term), 0), count(distinct member_id) from leader
"""
CONNECTIONS: Final = "select count(*) from pg_stat_activity where datname = current_database()"


async def heartbeats(ground: Ground, seconds: float) -> dict[str, Any]:
    """Measure the database idle, then under 32 members with 200 leaderships."""
    server = None if ground.server is None else ground.server.pid()
    if server is None or _spent_s(server) is None:
        raise Missing("the database's processes cannot be looked at from here")
    lease = Lease()
    with ground.database() as url:
        idle = await _percent(server, seconds)
        async with AsyncExitStack() as stack:
            for number in range(_PROCESSES):
                nodes = [f"n{number}.{each}" for each in range(MEMBERS // _PROCESSES)]
                names = [f"benchmark/{each}" for each in range(LEADERSHIPS)]
                one = await stack.enter_async_context(child(Orders(url, nodes, lease, names)))
                await one.when("ready")
            leaders = await _until_steady(url)
            busy = await _percent(server, seconds)
            async with await psycopg.AsyncConnection.connect(url) as connection:
                (connections,) = await _row(connection, CONNECTIONS)
    return {
        "members": MEMBERS,
        "leaderships": LEADERSHIPS,
        "members_that_lead": leaders,
        "ttl_s": lease.ttl_s,
        "heartbeat_s": lease.heartbeat_s,
        "connections": connections - 1,
        "measured_s": seconds,
        "idle_percent": round(idle, 2),
        "busy_percent": round(busy, 2),
        "cost_percent": round(max(0.0, busy - idle), 2),
    }


async def _until_steady(url: str) -> int:
    """Wait until everything is led and nothing has moved for a while; return how many lead."""
    deadline = boottime() + _BOUND_S
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        last: tuple[int, ...] = (0, 0, 0)
        since = boottime()
        while last[0] < LEADERSHIPS or boottime() < since + _STEADY_S:
            if boottime() > deadline:
                raise TimeoutError(f"{last[0]} of {LEADERSHIPS} leaderships are led, or they move")
            now = await _row(connection, LED)
            if now != last:
                last, since = now, boottime()
            await asyncio.sleep(0.1)
    return last[2]


async def _row(connection: psycopg.AsyncConnection[Any], query: LiteralString) -> tuple[int, ...]:
    row = await (await connection.execute(query)).fetchone()
    assert row is not None
    return tuple(row)


async def _percent(server: int, seconds: float) -> float:
    before, began = _spent_s(server), boottime()
    await asyncio.sleep(seconds)
    after, took_s = _spent_s(server), boottime() - began
    assert before is not None
    assert after is not None
    return 100 * (after - before) / took_s


def _spent_s(server: int) -> float | None:
    """Return the processor time of a server and its children, those that ended included."""
    try:
        children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        return _ticks_s(str(server), 13, 15) + sum(map(_ran_s, [str(server), *children]))
    except OSError:
        return None


def _ran_s(pid: str) -> float:
    """Return `utime + stime` of a process: to the nanosecond where Linux tells, else in ticks."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    except OSError:
        pass
    try:
        return _ticks_s(pid, 11, 13)
    except OSError:  # it ended while we looked: its parent's account has it
        return 0.0


def _ticks_s(pid: str, start: int, stop: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[start:stop])) / os.sysconf("SC_CLK_TCK")
