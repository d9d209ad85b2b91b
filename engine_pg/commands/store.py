"""The tables `command` and `command_step`: intention first, outcome after, nothing in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg.types.json import Jsonb

from engine_pg.commands.rows import CommandView, StepView, Submission
from engine_pg.db.database import Database
from engine_pg.db.tx import Record, Tx
from engine_pg.errors import NotFound

# One statement, one commit: the command and the job that runs it. A repeated submission of the same
# id is the same command: the first one's row stands, and no second job is made.
SUBMIT: Final[LiteralString] = """
with submitted as (
  insert into command (command_id, name, description, subject_kind, subject_id, params,
                       user_name, correlation_id, deadline_at, parent_id, retry_of, queue,
                       priority)
  values (%(command_id)s, %(name)s, %(description)s, %(subject_kind)s, %(subject_id)s, %(params)s,
          %(user_name)s, %(correlation_id)s,
          clock_timestamp() + %(deadline_s)s::float8 * interval '1 s', %(parent_id)s::uuid,
          %(retry_of)s::uuid, %(queue)s, %(priority)s)
  on conflict (command_id) do nothing
  returning command_id, queue, priority)
select procrastinate_defer_jobs_v1(array[row(
         queue, 'run_command', priority, null, null,
         jsonb_build_object('command_id', command_id), null)::procrastinate_job_to_defer_v1])
  from submitted
"""
# The same for many at once. Its caller rings after the commit: see revision 0015.
SUBMIT_MANY: Final[LiteralString] = """
with quiet as materialized (
  select set_config('engine_pg.jobs', 'rung after commit', true)),
given as materialized (
  select g.* from quiet, jsonb_to_recordset(%(rows)s) as g(
    command_id uuid, name text, description text, subject_kind text, subject_id uuid, params jsonb,
    user_name text, correlation_id text, deadline_s float8, parent_id uuid, retry_of uuid,
    queue text, priority integer)),
submitted as (
  insert into command (command_id, name, description, subject_kind, subject_id, params,
                       user_name, correlation_id, deadline_at, parent_id, retry_of, queue,
                       priority)
  select command_id, name, description, subject_kind, subject_id, params, user_name,
         correlation_id, clock_timestamp() + deadline_s * interval '1 s', parent_id, retry_of,
         queue, priority
    from given
  on conflict (command_id) do nothing
  returning command_id, queue, priority),
queued as (
  insert into procrastinate_jobs (queue_name, task_name, priority, args)
  select queue, 'run_command', priority, jsonb_build_object('command_id', command_id)
    from submitted)
select command_id from submitted
"""
PROVE: Final[LiteralString] = "select pg_logical_emit_message(true, 'engine_pg', 'submitted')"
# Commands that nobody runs and no job will: their job was lost, or their runner gave them up. What
# waits for its children is run by the end of the last one, unless it has to tell them of a halt.
# Of those that rested, since their runners ended again and again, one at a time (of many, a tenth):
# what ended them for all is then run apart from those that were only near.
REQUEUE: Final[LiteralString] = """
with stranded as (
  select c.command_id, c.queue, c.priority, c.submitted_at,
         c.deaths < 2 or row_number() over near <= greatest(1, count(*) over (near
           rows between unbounded preceding and unbounded following) / 10) as released
    from command c
   where c.ended_at is null and c.member_id is null
     and (c.not_before is null or c.not_before <= clock_timestamp())
     and (c.cancel_asked_at is not null or c.deadline_at < clock_timestamp() or not exists (
            select from command child
             where child.parent_id = c.command_id and child.ended_at is null))
     and c.submitted_at < clock_timestamp() - interval '2 s'
     and not exists (select from procrastinate_jobs j
                      where j.status = 'todo' and j.task_name = 'run_command'
                        and j.args->>'command_id' = c.command_id::text)
  window near as (partition by c.deaths < 2 order by c.not_before, c.command_id)),
chosen as (select * from stranded where released order by submitted_at limit 200)
select procrastinate_defer_jobs_v1(array_agg(row(
         queue, 'run_command', priority, null, null, jsonb_build_object('command_id', command_id),
         null)::procrastinate_job_to_defer_v1)) as jobs from chosen having count(*) > 0
"""
# A job whose worker is gone or silent stands in the way of nobody but itself.
DROP_ORPHANS: Final[LiteralString] = """
delete from procrastinate_jobs j
 where j.status = 'doing' and j.task_name = 'run_command'
   and not exists (select from procrastinate_workers w
                    where w.id = j.worker_id and w.last_heartbeat > now() - interval '10 min')
"""
SWEEP_GRANTS: Final[LiteralString] = "select lock_grants_sweep() as swept"
GET: Final[LiteralString] = """
select *, coalesce(deadline_at < clock_timestamp(), false) as overdue
  from command where command_id = %(command_id)s
"""
HOLD: Final[LiteralString] = "select from command where command_id = %(command_id)s for update"
GET_ALL: Final[LiteralString] = """
select *, coalesce(deadline_at < clock_timestamp(), false) as overdue
  from command where command_id = any(%(ids)s::uuid[]) order by submitted_at, command_id
"""
GET_MANY: Final[LiteralString] = """
select *, coalesce(deadline_at < clock_timestamp(), false) as overdue
  from command where command_id = any(%(ids)s::uuid[])
"""
TO_HALT: Final[LiteralString] = """
select *, coalesce(deadline_at < clock_timestamp(), false) as overdue
  from command where command_id = any(%(ids)s::uuid[]) and ended_at is null
   and (cancel_asked_at is not null or deadline_at < clock_timestamp())
"""
ASK_CANCEL: Final[LiteralString] = "select command_cancel(%(command_id)s, %(by)s, %(unbegun)s)"
# Whether a command that was not to be claimed is a parent whose child's end may have called it: it
# was run at that moment, and may have been parked since.
CALLED: Final[LiteralString] = """
select exists (select from command child where child.parent_id = c.command_id) as called
  from command c
 where c.command_id = %(command_id)s and c.ended_at is null
   and (c.not_before is null or c.not_before <= clock_timestamp())
"""
BLAME: Final[LiteralString] = """
update command set deaths = deaths + 1, not_before = clock_timestamp() + command_pause(deaths + 1)
 where command_id = %(command_id)s and ended_at is null
"""
STEPS: Final[LiteralString] = """
select * from command_step where command_id = any(%(ids)s::uuid[]) order by command_id, number
"""
STATES: Final[LiteralString] = """
select command_id, accepted_at is not null as accepted, ended_at is not null as final
  from command where command_id = any(%(ids)s::uuid[])
"""
_READERS: Final[dict[str, Callable[[str], object]]] = {
    f.name: read
    for f in fields(CommandView)
    for kind, read in (("UUID", UUID), ("datetime", datetime.fromisoformat))
    if kind in str(f.type)
}
"""How columns are read that JSON has as texts."""


def _step(record: Record) -> StepView:
    return StepView(**{f.name: record[f.name] for f in fields(StepView)})


def _command(record: Record, steps: Sequence[StepView]) -> CommandView:
    values: dict[str, Any] = {
        f.name: record[f.name] for f in fields(CommandView) if f.name != "steps"
    }
    return CommandView(**values, steps=tuple(steps))


def written(
    submission: Submission,
    *,
    description: str,
    subject_kind: str,
    queue: str = "commands",
    priority: int = 0,
) -> Record:
    """Return the row of a command that is submitted, as JSON can say it."""
    parent, first = submission.parent_id, submission.retry_of
    return {
        "command_id": str(submission.command_id),
        "name": submission.name,
        "description": description,
        "subject_kind": subject_kind,
        "subject_id": str(submission.subject_id),
        "params": submission.params,
        "user_name": submission.user_name,
        "correlation_id": submission.correlation_id,
        "deadline_s": submission.deadline_s,
        "parent_id": None if parent is None else str(parent),
        "retry_of": None if first is None else str(first),
        "queue": queue,
        "priority": priority,
    }


async def submit(tx: Tx, row: Record) -> None:
    """Write a command and its job in the caller's transaction; repeating it changes nothing."""
    if not await tx.run(SUBMIT, row):  # it is there, but perhaps on no standby yet: ours shows it
        await tx.run(PROVE)


async def submit_many(db: Database, rows: Sequence[Record]) -> list[None]:
    """Write commands and their jobs in one commit; repeating them changes nothing."""
    new = await db.commit_once(SUBMIT_MANY, {"rows": Jsonb(list(rows))})
    if len(new) < len(rows):  # there, but perhaps on no standby yet: our own commit shows it
        await db.statement(PROVE)
    return [None] * len(rows)


async def view(tx: Tx, command_id: UUID) -> CommandView:
    """Return a command with its steps; raises `NotFound`."""
    record = await tx.first(GET, {"command_id": command_id})
    if record is None:
        raise NotFound(f"there is no command {command_id}")
    steps = await tx.all(STEPS, {"ids": [command_id]})
    return _command(record, [_step(each) for each in steps])


async def without_steps(tx: Tx, ids: Sequence[UUID]) -> list[CommandView]:
    """Return commands without their steps, as far as they exist."""
    return [_command(each, ()) for each in await tx.all(GET_ALL, {"ids": list(ids)})]


async def to_halt(tx: Tx, ids: Sequence[UUID]) -> list[CommandView]:
    """Return those of the commands, without their steps, that are cancelled or overdue."""
    return [_command(each, ()) for each in await tx.all(TO_HALT, {"ids": list(ids)})]


async def held(tx: Tx, command_id: UUID) -> CommandView:
    """Return a command that nobody else changes until the transaction ends."""
    await tx.run(HOLD, {"command_id": command_id})
    return await view(tx, command_id)


async def ask_cancel(tx: Tx, command: CommandView, *, by: str) -> None:
    """Write that a command, as it is held, is to be halted; one that nobody has begun ends."""
    unbegun = command.attempt == 0 and command.member_id is None
    await tx.run(ASK_CANCEL, {"command_id": command.command_id, "by": by, "unbegun": unbegun})


async def views(db: Database, ids: Sequence[UUID]) -> list[CommandView | None]:
    """Return commands with their steps, in order; None: there is no such command."""
    rows = await db.once(GET_MANY, {"ids": list(ids)})
    steps: dict[UUID, list[StepView]] = {}
    for row in await db.once(STEPS, {"ids": list(ids)}):
        steps.setdefault(row["command_id"], []).append(_step(row))
    found = {row["command_id"]: _command(row, steps.get(row["command_id"], ())) for row in rows}
    return [found.get(command_id) for command_id in ids]


def claimed(row: Record) -> CommandView:
    """Return a command from its row as JSON; one that has no steps yet."""
    return _command(
        {
            name: _READERS[name](value) if name in _READERS and value is not None else value
            for name, value in row.items()
        },
        (),
    )


async def states(tx: Tx, ids: Sequence[UUID]) -> list[Record]:
    """Return `command_id`, `accepted` and `final` of commands."""
    return await tx.all(STATES, {"ids": list(ids)})
