"""What proves a switchover: a writer that goes on all the while, and the engine's members.

The writer counts in one row of `formation_proof`. Commits of one session are in the log in their
order; so when the last number that was acknowledged is there afterwards, every write before it is.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, LiteralString
from uuid import UUID

from engine_pg.clock import boottime
from engine_pg.db.database import Database, connect
from engine_pg.db.hosts import HostConnection
from engine_pg.db.tx import Connection
from engine_pg.db.wire import bounded
from engine_pg.errors import EngineError
from engine_pg.formation.asking import closed
from engine_pg.ids import new_id

COUNT: Final[LiteralString] = """
insert into formation_proof (switchover_id, number) values (%(id)s, %(number)s)
on conflict (switchover_id) do update set number = excluded.number, at = clock_timestamp()
"""
FOUND: Final[LiteralString] = """
select number from formation_proof where switchover_id = %(id)s
"""
UNDER_WAY: Final[LiteralString] = """
select 1 as under_way from formation_proof
 where at > clock_timestamp() - interval '15 seconds' limit 1
"""
"""A switchover goes on, or is just over: its last write is longer ago than its gap can be."""
SWEEP: Final[LiteralString] = """
delete from formation_proof where at < clock_timestamp() - interval '1 day'
"""
LIVING: Final[LiteralString] = """
select member_id, node, state, epoch_id from member
 where state = 'live' or member_id = any(%(known)s::uuid[])
"""
THERE: Final[LiteralString] = "select to_regclass('formation_proof') is not null as there"
_PACE_S: Final = 0.02
_BOUND_S: Final = 3.0
_RESUMED_S: Final = 30.0
_POLL_S: Final = 0.1


class Writer:
    """Writes all the time; keeps what was acknowledged, and the longest time without that."""

    def __init__(self, url: str) -> None:
        self.acknowledged = 0
        self.gap_s = 0.0
        self.timeline = 0
        """That of the server which acknowledged last."""
        self._url = url
        self._id = new_id()
        self._number = 0
        self._last = 0.0
        self._begun = asyncio.Event()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            with suppress(EngineError):
                connection = await connect(self._url, name="engine_pg switchover")
                try:
                    await self._write(connection)
                finally:
                    await closed(connection)
            await asyncio.sleep(_PACE_S)

    async def begun(self, bound_s: float) -> bool:
        """Wait for the first acknowledgement; say whether there was one."""
        with suppress(TimeoutError):
            async with asyncio.timeout(bound_s):
                await self._begun.wait()
        return self._begun.is_set()

    async def lost(self, db: Database) -> int:
        """Return how many acknowledged writes are not there.

        The row stays for a day: whoever asks why the primary changed finds it.
        """
        async with db.write() as tx:
            row = await tx.first(FOUND, {"id": self._id})
            await tx.run(SWEEP)
        return max(0, self.acknowledged - (row["number"] if row else 0))

    async def _write(self, connection: Connection) -> None:
        while True:
            self._number += 1
            params = {"id": self._id, "number": self._number}
            await bounded(connection, connection.execute(COUNT, params), _BOUND_S)
            now = boottime()
            if self.acknowledged:
                self.gap_s = max(self.gap_s, now - self._last)
            self.acknowledged, self._last = self._number, now
            self._begun.set()
            if isinstance(connection, HostConnection):
                self.timeline = connection.timeline
            await asyncio.sleep(_PACE_S)


@dataclass(frozen=True, slots=True)
class Roll:
    """The engine's members that lived before a switchover, by id, and their newest epoch."""

    nodes: dict[UUID, str]
    epoch_id: int


async def roll_of(db: Database) -> Roll:
    """Return who lives now."""
    rows = await _living(db, [])
    epoch_id = max((row["epoch_id"] for row in rows), default=0)
    return Roll({row["member_id"]: row["node"] for row in rows}, epoch_id)


async def missing_after(db: Database, before: Roll) -> list[str]:
    """Return the nodes whose members have not resumed in a newer epoch, after waiting for them."""
    deadline = boottime() + _RESUMED_S
    while True:
        with suppress(EngineError):
            rows = await _living(db, list(before.nodes))
            back = {row["member_id"] for row in rows if _resumed(row, before.epoch_id)}
            ended = {row["member_id"] for row in rows if row["state"] != "live"}
            waited_for = before.nodes.keys() - back - ended
            if not waited_for or boottime() > deadline:
                return sorted(before.nodes[each] for each in before.nodes.keys() - back)
        if boottime() > deadline:
            return sorted(before.nodes.values())
        await asyncio.sleep(_POLL_S)


def _resumed(row: dict[str, Any], epoch_id: int) -> bool:
    return row["state"] == "live" and row["epoch_id"] > epoch_id


async def _living(db: Database, known: list[UUID]) -> list[dict[str, Any]]:
    async with db.read() as tx:
        return await tx.all(LIVING, {"known": known})


async def ready(db: Database) -> bool:
    """Say whether the database has the table that proofs are written into."""
    async with db.read() as tx:
        row = await tx.first(THERE)
    return bool(row and row["there"])
