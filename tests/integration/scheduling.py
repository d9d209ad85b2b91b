"""Schedules for tests: defined on a real database, fired by loops of this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

from typing_extensions import override

from engine_pg.configuration.store import Author
from engine_pg.db.database import Database
from engine_pg.db.listener import Doorbells
from engine_pg.errors import OutcomeUnknown
from engine_pg.schedules import runs, store
from engine_pg.schedules.firing import Schedules
from engine_pg.schedules.known import KNOWN
from engine_pg.schedules.rows import RunRow, ScheduleRow

ADMIN: Final = Author("a@internal")
WORK: Final = "trim-events"
EVERY: Final = {"work": WORK, "every_s": 1, "overlap": "allow", "misfire": "fire_all"}
HOURLY: Final = EVERY | {"every_s": 3600}
COMMAND: Final = {
    "command": "add_data_center",
    "params": {"name": "lab"},
    "every_s": 3600,
    "overlap": "allow",
    "misfire": "fire_all",
}
# As if the database had been away: the next tick is `late_s` old.
LATE: Final = """
update schedule set due_at = due_at - make_interval(secs => %(late_s)s),
       fires_at = fires_at - make_interval(secs => %(late_s)s)
 where name = %(name)s
"""
MOVE: Final = """
update schedule set anchor_at = anchor_at + interval '1 min' where name = %(name)s
"""
# Each tick in one row: begun one after the other, at the grid's distance, none twice.
TILED: Final = """
select schedule, count(*) as rows, sum(ticks) as ticks,
       bool_and(first_due_at = previous + make_interval(secs => %(every_s)s)
                or previous is null) as whole,
       max(due_at) as last, min(first_due_at) as first
  from (select *, lag(due_at) over (partition by schedule order by due_at) as previous
          from schedule_run where cause <> 'trigger') as r
 where schedule = %(name)s group by schedule
"""
JOBS: Final = """
select args->>'command_id' as run_id from procrastinate_jobs where task_name = 'run_command'
"""
COMMANDS: Final = "select command_id::text as run_id from command"


class Lossy(Database):
    """Loses the answer to one commit; `lose` says whether it happened."""

    lose: str = ""

    @override
    async def _commit(self, connection) -> None:
        lose, self.lose = self.lose, ""
        if lose == "undone":
            await connection.execute("rollback")
        else:
            await super()._commit(connection)
        if lose:
            raise OutcomeUnknown("the answer was lost")


class Firing:
    """A node as far as it fires; its loop runs only when a test calls `turn` or `run`."""

    def __init__(self, db: Lossy, bells: Doorbells, name: str) -> None:
        self.db = db
        self.bells = bells
        self.schedules = Schedules(db, bells, KNOWN, node=name)

    async def turn(self) -> float:
        return await self.schedules.turn()

    async def settle(self) -> float:
        """Fire until there is nothing due; return in how many seconds there will be."""
        while (wait_s := await self.turn()) == 0.0:
            pass
        return wait_s

    async def set(self, name: str, **values: Any) -> ScheduleRow:
        async with self.db.write() as tx:
            return await store.assign(tx, name, values, ADMIN, KNOWN)

    async def get(self, name: str) -> ScheduleRow:
        async with self.db.read() as tx:
            return await store.get(tx, name)

    async def pause(self, name: str, *, paused: bool) -> ScheduleRow:
        async with self.db.write() as tx:
            return await store.pause(tx, name, ADMIN, paused=paused)

    async def late(self, name: str, late_s: float) -> None:
        await self.db.statement(LATE, {"name": name, "late_s": late_s})

    async def tick(self, name: str) -> None:
        """Fire one more tick of a schedule whose next one is far away: its grid is moved."""
        await self.db.statement(MOVE, {"name": name})
        await self.settle()
        every_s = (await self.get(name)).every_s
        assert every_s is not None
        await self.late(name, every_s)
        await self.turn()

    async def runs(self, name: str) -> list[RunRow]:
        """Return the runs of a schedule, the oldest tick first."""
        async with self.db.read() as tx:
            found = await runs.history(tx, schedule=name, most=100_000)
        return sorted(found, key=lambda run: run.due_at)

    async def rows(self, query: str, **params: Any) -> list[dict[str, Any]]:
        async with self.db.read() as tx:
            return await tx.all(query, params)

    async def commands(self) -> list[str]:
        """Return the commands that were submitted, each of which has one job."""
        found = sorted(row["run_id"] for row in await self.rows(COMMANDS))
        assert found == sorted(row["run_id"] for row in await self.rows(JOBS))
        return found


@asynccontextmanager
async def firing(url: str, name: str = "a", *, listening: bool = False) -> AsyncGenerator[Firing]:
    async with Lossy(url, name=name) as db:
        bells = Doorbells(url)
        ringing = asyncio.ensure_future(bells.run()) if listening else None
        try:
            yield Firing(db, bells, name)
        finally:
            if ringing is not None:
                ringing.cancel()
                await asyncio.wait([ringing])
