"""The table `schedule_run`: what fired, and what became of it.

Of a command the run is the command itself: its state is the command's, and settled here when
somebody looks. Of a work the row is all there is: nodes take it from here, as jobs from a queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg.types.json import Jsonb

from engine_pg.db.tx import Record, Tx
from engine_pg.ids import derived_id
from engine_pg.schedules.planning import Firing, Open
from engine_pg.schedules.rows import RunRow, ScheduleRow, run_of

TOPIC: Final = "work"
"""The doorbell of works that are to be run."""

# Who has no doorbell at hand has the database ring.
ALOUD: Final[LiteralString] = "select set_config('engine_pg.rings', 'in the transaction', true)"
# What is there stands, and has begun: of a trigger that is repeated, of a tick that somebody has
# moved a schedule back to.
RECORD: Final[LiteralString] = """
insert into schedule_run (run_id, schedule, cause, first_due_at, due_at, ticks, state, reason,
                          fired_by, command_id, ended_at)
select run_id, %(schedule)s, cause, first_due_at, due_at, ticks, state, reason, %(by)s, command_id,
       case when state = 'skipped' then clock_timestamp() end
  from jsonb_to_recordset(%(runs)s) as r(run_id uuid, cause text, first_due_at timestamptz,
       due_at timestamptz, ticks integer, state text, reason text, command_id uuid)
on conflict do nothing
returning run_id, state, command_id
"""
# Runs that are commands, as far as those have ended meanwhile.
SETTLE: Final[LiteralString] = """
update schedule_run r set state = c.state, attempt = c.attempt, started_at = c.started_at,
       ended_at = c.ended_at, outcome = coalesce(c.error, '')
  from command c
 where r.schedule = %(schedule)s and r.state = 'queued' and c.command_id = r.command_id
   and c.ended_at is not null
"""
OPEN: Final[LiteralString] = """
select coalesce(bool_or(state in ('queued', 'running')), false) as active,
       (array_agg(run_id) filter (where state = 'waiting'))[1] as waiting
  from schedule_run where schedule = %(schedule)s and state in ('waiting', 'queued', 'running')
"""
RELEASE: Final[LiteralString] = """
update schedule_run set state = 'queued', fired_at = clock_timestamp(), command_id = %(command)s
 where run_id = %(run)s and state = 'waiting' returning run_id
"""
# What is to be run, what an ended member ran, and what this one was given and never heard of.
TAKE: Final[LiteralString] = """
with chosen as materialized (
  select r.run_id, s.action from schedule_run r join schedule s on s.name = r.schedule
   where r.state in ('queued', 'running') and r.command_id is null and s.action = any(%(known)s)
     and (r.state = 'queued'
          or r.member_id = %(member)s and r.run_id <> all(%(running)s::uuid[])
          or not exists (select from member m where m.member_id = r.member_id and m.state = 'live'))
   order by r.fired_at limit %(places)s for update of r skip locked)
update schedule_run r set state = 'running', attempt = attempt + 1, member_id = %(member)s,
       node = %(node)s, started_at = clock_timestamp()
  from chosen c where r.run_id = c.run_id
returning r.run_id, r.attempt, c.action
"""
END: Final[LiteralString] = """
update schedule_run r set state = %(state)s, ended_at = clock_timestamp(), outcome = %(outcome)s
 where run_id = %(run)s and state = 'running' and attempt = %(attempt)s
returning exists (select from schedule_run w
                   where w.schedule = r.schedule and w.state = 'waiting') as waiting
"""
GIVE_BACK: Final[LiteralString] = """
update schedule_run set state = 'queued', member_id = null, attempt = attempt - 1
 where run_id = %(run)s and state = 'running' and attempt = %(attempt)s
returning run_id
"""
HISTORY: Final[LiteralString] = """
select r.run_id, r.schedule, r.cause, r.first_due_at, r.due_at, r.ticks,
       case when r.state = 'queued' then coalesce(c.state, r.state) else r.state end as state,
       r.reason, r.fired_at, r.fired_by, r.command_id, r.node,
       greatest(r.attempt, coalesce(c.attempt, 0)) as attempt,
       coalesce(r.started_at, c.started_at) as started_at,
       coalesce(r.ended_at, c.ended_at) as ended_at,
       coalesce(nullif(r.outcome, ''), c.error, '') as outcome
  from schedule_run r left join command c on c.command_id = r.command_id
 where r.schedule = coalesce(%(schedule)s::text, r.schedule)
   and r.run_id = coalesce(%(run)s::uuid, r.run_id)
 order by r.fired_at desc, r.due_at desc limit %(most)s
"""
TRIM: Final[LiteralString] = """
delete from schedule_run where run_id in (
  select run_id from (
    select r.run_id, s.keep_runs,
           row_number() over (partition by r.schedule order by r.fired_at desc, r.due_at desc) as n
      from schedule_run r join schedule s on s.name = r.schedule
     where r.ended_at is not null) as numbered
   where n > keep_runs limit 5000)
"""


def run_id_of(schedule: ScheduleRow, firing: Firing) -> UUID:
    """Return the identity of a tick's run: whoever fires it, however often, means the same one."""
    return derived_id("schedule", schedule.name, schedule.anchor_at, firing.due)


async def still_open(tx: Tx, schedule: ScheduleRow) -> tuple[Open, UUID | None]:
    """Return whether runs are not over, and the one that waits; the schedule's row is locked."""
    params = {"schedule": schedule.name}
    if schedule.kind == "command":
        await tx.run(SETTLE, params)
    found = await tx.first(OPEN, params)
    assert found is not None
    return Open(found["active"], found["waiting"] is not None), found["waiting"]


async def record(
    tx: Tx, schedule: ScheduleRow, runs: Sequence[tuple[UUID, Firing]], by: str
) -> list[UUID]:
    """Write runs; return those that are to begin and are not there yet."""
    rows = [_row(schedule, run_id, firing) for run_id, firing in runs]
    params = {"schedule": schedule.name, "by": by, "runs": Jsonb(rows)}
    written = await tx.all(RECORD, params)
    return [row["run_id"] for row in written if row["state"] == "queued"]


def _row(schedule: ScheduleRow, run_id: UUID, firing: Firing) -> dict[str, Any]:
    begins_command = schedule.kind == "command" and firing.state == "queued"
    return {
        "run_id": str(run_id),
        "cause": firing.cause,
        "first_due_at": firing.first.isoformat(),
        "due_at": firing.due.isoformat(),
        "ticks": firing.ticks,
        "state": firing.state,
        "reason": firing.reason,
        "command_id": str(run_id) if begins_command else None,
    }


async def release(tx: Tx, run_id: UUID, *, is_command: bool) -> bool:
    """Let the run that waits begin; tell whether it still waited."""
    params = {"run": run_id, "command": run_id if is_command else None}
    return await tx.first(RELEASE, params) is not None


async def history(
    tx: Tx, *, schedule: str | None = None, run_id: UUID | None = None, most: int = 100
) -> list[RunRow]:
    """Return runs, the newest first."""
    params: Record = {"schedule": schedule, "run": run_id, "most": most}
    return [run_of(each) for each in await tx.all(HISTORY, params)]
