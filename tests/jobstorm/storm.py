"""The storm: who submits, who restarts the server, who kills nodes; and what is then in the tables.

Each step of a command writes a row of its own into `witness`, which no key keeps from being there
twice: what happened is counted there, not in the columns that the engine goes by.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from engine_pg.clock import boottime
from engine_pg.commands.rows import Submission
from engine_pg.commands.service import Commands
from engine_pg.db.database import Database
from engine_pg.db.embedded import EmbeddedPostgres
from engine_pg.db.listener import Doorbells
from engine_pg.errors import EngineError, OutcomeUnknown, Unavailable
from engine_pg.ids import new_id
from jobstorm.node import DEFINITION, NAME, STEPS
from jobstorm.open import reasons

TABLE = "create table witness (command_id uuid, step text, attempt integer)"
OPEN = "select count(*)::integer as n from command where ended_at is null"
COMMANDS = "select command_id, state, attempt, error from command where name = %(name)s"
WITNESSED = "select command_id, step, count(*)::integer as n from witness group by 1, 2"
JOBS = "select count(*)::integer as n from procrastinate_jobs"
BOUND_S = 60.0


@dataclass
class Weather:
    """How bad it is: seconds between restarts and between kills, from and to."""

    restart_s: tuple[float, float] = (10.0, 30.0)
    kill_s: tuple[float, float] = (2.0, 10.0)
    back_s: tuple[float, float] = (0.1, 2.0)
    hold_s: float = 0.3  # a command, on the average


@dataclass
class Log:
    """What was done to whom, and what came of it."""

    submitted: int = 0
    restarts: int = 0
    kills: int = 0
    ended_by_themselves: int = 0
    refused: int = 0
    in_doubt: int = 0
    attempts: dict[int, int] = field(default_factory=dict)
    took_s: float = 0.0
    settled_s: float = 0.0
    violations: list[str] = field(default_factory=list)
    open: dict[str, Any] = field(default_factory=dict)


class Storm:
    """One storm over one database."""

    def __init__(self, server: EmbeddedPostgres, url: str, seed: int, weather: Weather) -> None:
        self.log = Log()
        self._server = server
        self._url = url
        self._chance = random.Random(seed)
        self._weather = weather
        self._ids: list[object] = []
        self._over = asyncio.Event()
        self._working = asyncio.Event()

    async def rage(self, commands: int, nodes: int, rate: float) -> Log:
        """Submit so many commands, so many a second, and judge what became of them."""
        async with await psycopg.AsyncConnection.connect(self._url, autocommit=True) as connection:
            await connection.execute(TABLE)
        began = boottime()
        bells = Doorbells(self._url)
        async with Database(self._url, name="storm") as db, asyncio.TaskGroup() as group:
            ringing = group.create_task(bells.run())
            living = [group.create_task(self._node(f"n{number}")) for number in range(nodes)]
            trouble = [group.create_task(self._restarts())]
            service = Commands(db, bells, {NAME: DEFINITION})
            await self._submit(service, began)
            await self._working.wait()
            calm_until = boottime()
            async with asyncio.TaskGroup() as submitting:
                for number in range(1, commands):
                    submitting.create_task(self._submit(service, calm_until + number / rate))
            submitted_at = boottime()
            self._over.set()
            await asyncio.wait(trouble)
            await self._settled(db)
            self.log.settled_s = round(boottime() - submitted_at, 1)
            self.log.took_s = round(boottime() - began, 1)
            for job in (*living, ringing):
                job.cancel()
            await asyncio.wait(living)
            await self._judge(db)
        return self.log

    async def _submit(self, service: Commands, at: float) -> None:
        """Submit under one id until it is certain, as a client does that wants it done."""
        await asyncio.sleep(max(0.0, at - boottime()))
        hold_s = self._chance.expovariate(1 / self._weather.hold_s)
        submission = Submission(name=NAME, subject_id=new_id(), params={"hold_s": hold_s})
        while True:
            try:
                await service.submit(submission)
            except Unavailable:
                self.log.refused += 1
            except OutcomeUnknown:
                self.log.in_doubt += 1
            else:
                break
            await asyncio.sleep(0.1)
        self._ids.append(submission.command_id)
        self.log.submitted += 1

    async def _restarts(self) -> None:
        await self._working.wait()
        while await self._calm(self._weather.restart_s):
            how = self._chance.choice(("immediate", "immediate", "fast"))
            await asyncio.to_thread(self._server.stop, how)
            await asyncio.sleep(self._chance.uniform(0.0, 1.0))
            await asyncio.to_thread(self._server.start)
            self.log.restarts += 1

    async def _node(self, name: str) -> None:
        """Keep a node running: it is killed now and then, and started again as systemd does."""
        while True:
            async with self._process(name) as process:
                if await self._lives(process):
                    process.kill()
                    self.log.kills += 1
                else:
                    self.log.ended_by_themselves += 1
            await asyncio.sleep(self._chance.uniform(*self._weather.back_s))

    async def _lives(self, process: asyncio.subprocess.Process) -> bool:
        """Return a while after it began to work, or at its end; whether it is there still."""
        assert process.stdout is not None
        if not await process.stdout.readline():
            return False
        self._working.set()
        bound_s = None if self._over.is_set() else self._chance.uniform(*self._weather.kill_s)
        try:
            async with asyncio.timeout(bound_s), asyncio.TaskGroup() as group:
                group.create_task(_drained(process.stdout))
                await process.wait()
        except TimeoutError:
            return True
        return False

    @asynccontextmanager
    async def _process(self, name: str) -> AsyncGenerator[asyncio.subprocess.Process]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "jobstorm.node", self._url, name),
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def _calm(self, between_s: tuple[float, float]) -> bool:
        """Wait until the next blow; False when the storm is over."""
        try:
            async with asyncio.timeout(self._chance.uniform(*between_s)):
                await self._over.wait()
        except TimeoutError:
            return True
        return False

    async def _settled(self, db: Database) -> None:
        """Wait until nothing is left to do, as long as it becomes less."""
        least, deadline = sys.maxsize, boottime() + BOUND_S
        while least and boottime() < deadline:
            with suppress(EngineError):
                left = (await db.once(OPEN))[0]["n"] + (await db.once(JOBS))[0]["n"]
                if left < least:
                    least, deadline = left, boottime() + BOUND_S
            await asyncio.sleep(0.2)
        if least:
            self.log.violations.append(f"nothing has become final for {BOUND_S:.0f} s")
            self.log.open = await reasons(db)

    async def _judge(self, db: Database) -> None:
        found = {row["command_id"]: row for row in await db.once(COMMANDS, {"name": NAME})}
        done = {(row["command_id"], row["step"]): row["n"] for row in await db.once(WITNESSED)}
        blame = self.log.violations.append
        for command_id in self._ids:
            if command_id not in found:
                blame(f"{command_id} was acknowledged and is lost")
        for command_id, row in found.items():
            attempts = self.log.attempts
            attempts[row["attempt"]] = attempts.get(row["attempt"], 0) + 1
            if row["state"] != "succeeded":
                blame(f"{command_id} is {row['state']}: {row['error']}")
            for step in STEPS:
                if (times := done.get((command_id, step), 0)) != 1:
                    blame(f"{command_id}: {step} was done {times} times")


async def _drained(stream: asyncio.StreamReader) -> None:
    while await stream.readline():
        pass
