"""The loop of each node that fires what is due, and what `trigger` does.

A node sleeps until the next tick of all is due, `POLL_S` at most, and looks earlier when the
doorbell tells of a changed schedule. How long that is, the database says: no node's clock is
compared with a tick.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from engine_pg.clock import boottime
from engine_pg.commands.desk import Desk
from engine_pg.commands.rows import Submission
from engine_pg.db.database import Database
from engine_pg.db.listener import Doorbells
from engine_pg.db.tx import Tx
from engine_pg.errors import Conflict, EngineError, Invalid, OutcomeUnknown, Unavailable
from engine_pg.ids import derived_id
from engine_pg.schedules import planning, runs, store
from engine_pg.schedules.planning import Firing, Open
from engine_pg.schedules.rows import RunRow, ScheduleRow
from engine_pg.schedules.store import Known

log = logging.getLogger(__name__)

POLL_S: Final = 10.0
_AT_ONCE: Final = 20
_AGAIN_S: Final = 1.0
_TAKEN_S: Final = 0.05
"""Another node is at what is due: it will be done, or the row let go of."""
_WAITING_S: Final = 0.5
_INSIST_S: Final = 6.0


class Schedules:
    """One node's part in firing the schedules of the cluster."""

    def __init__(self, db: Database, bells: Doorbells, known: Known, *, node: str) -> None:
        self._db = db
        self._known = known
        self._node = node
        self._bells = bells
        self._bell = bells.bell(store.TOPIC)
        self._declared = False

    async def run(self) -> None:
        """Fire what is due until cancelled."""
        while True:
            try:
                wait_s = await self.turn()
            except EngineError as error:
                log.info("schedules are not fired now: %s", error)
                wait_s = _AGAIN_S
            except Exception:  # a row that no node can read must not take down all
                log.exception("schedules cannot be fired")
                wait_s = _AGAIN_S
            await self._bell.wait(min(wait_s, POLL_S))

    async def turn(self) -> float:
        """Fire what is due; return in how many seconds there is something to look for."""
        if not self._declared:
            async with self._db.write() as tx:
                await store.declare(tx)
            self._declared = True
        look = (await self._db.once(store.LOOK, {"known": self._known.actions}))[0]
        wait_s: float = POLL_S if look["wait_s"] is None else look["wait_s"]
        if wait_s > 0 and not look["waiting"]:
            return wait_s
        if await self._fire():
            return 0.0
        return _TAKEN_S if wait_s <= 0 else min(wait_s, _WAITING_S)

    async def _fire(self) -> int:
        """Fire what is due and nobody else is at; return how many schedules that were.

        The commit's answer may be lost: the next look finds the rows as they then are.
        """
        async with self._db.write() as tx:
            found = await store.due(tx, self._known, _AT_ONCE)
            for schedule, now in found:
                try:
                    await self._one(tx, schedule, now)
                except Invalid as problem:  # written past the rules; not to be found due again
                    log.warning("the schedule %s is set aside: %s", schedule.name, problem)
                    await store.broken(tx, schedule, str(problem))
        if any(schedule.kind == "work" for schedule, _ in found):
            self._bells.ring(runs.TOPIC)
        return len(found)

    async def _one(self, tx: Tx, schedule: ScheduleRow, now: datetime) -> None:
        policy, timetable = schedule.definition.policy, schedule.timetable
        if schedule.kind == "command":
            self._known.describe(schedule.action, schedule.params)
        open_, waiting = await runs.still_open(tx, schedule)
        if waiting is not None and not open_.active:
            is_command = schedule.kind == "command"
            if await runs.release(tx, waiting, is_command=is_command):
                await begin(tx, schedule, [waiting], self._known)
            open_ = Open(active=True)
        if schedule.paused or schedule.fires_at is None or schedule.fires_at > now:
            return
        if schedule.due_at is None:
            await store.advance(tx, schedule, store.upcoming(schedule, now))
            return
        due = planning.due(timetable, schedule.due_at, now)
        written = planning.firings(due, now, policy, open_)
        identified = [(runs.run_id_of(schedule, each), each) for each in written]
        begun = await runs.record(tx, schedule, identified, self._node)
        await begin(tx, schedule, begun, self._known)
        await store.advance(tx, schedule, due.next, written)


async def begin(tx: Tx, schedule: ScheduleRow, ids: Sequence[UUID], known: Known) -> None:
    """Let runs begin with the transaction's commit: a command has its own row, and a job."""
    if schedule.kind == "work":  # its row is what nodes look for
        return
    desk = Desk(known.commands)
    for run_id in ids:
        submission = Submission(
            name=schedule.action,
            subject_id=schedule.subject_id or derived_id(run_id, "subject"),
            params=schedule.params,
            user_name=f"schedule {schedule.name}",
            correlation_id=str(run_id),
            command_id=run_id,
        )
        await desk.submit(tx, submission)


async def trigger(tx: Tx, name: str, run_id: UUID, by: str, known: Known) -> RunRow:
    """Fire a schedule now, paused or not; the same `run_id` is the same run.

    Raises `NotFound`, and `Conflict` when the overlap policy does not let it run.
    """
    schedule, now = await store.locked(tx, name)
    found = await runs.history(tx, run_id=run_id)
    if not found:
        open_, _ = await runs.still_open(tx, schedule)
        firing = planning.admitted(
            Firing(now, now, cause="trigger"), schedule.definition.policy.overlap, open_
        )
        if firing.state == "skipped":
            raise Conflict(
                f"{name} does not fire: {firing.reason}, and its overlap policy is"
                f" {schedule.overlap}"
            )
        await tx.all(runs.ALOUD)
        begun = await runs.record(tx, schedule, [(run_id, firing)], by)
        await begin(tx, schedule, begun, known)
        await store.counted(tx, schedule)
        found = await runs.history(tx, run_id=run_id)
    return found[0]


async def triggered(db: Database, name: str, run_id: UUID, by: str, known: Known) -> RunRow:
    """Fire a schedule now; a commit whose answer was lost is repeated as the same run."""
    deadline = boottime() + _INSIST_S
    unknown: OutcomeUnknown | None = None
    while True:
        try:
            async with db.write() as tx:
                run = await trigger(tx, name, run_id, by, known)
        except OutcomeUnknown as error:
            unknown = error
        except Unavailable:
            if unknown is None:
                raise
        else:
            return run
        if boottime() > deadline:
            raise unknown
        await asyncio.sleep(0.1)
