"""The tables `command` and `command_step`: intention first, outcome after, nothing in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg.types.json import Jsonb

from engine_pg.commands.rows import CommandView, StepView, Submission
from engine_pg.db.tx import Record, Tx
from engine_pg.errors import NotFound

# One statement, one commit: the command and the job that runs it. A repeated submission of the same
# id is the same command: the first one's row stands, and no second job is made.
SUBMIT: Final[LiteralString] = """
with submitted as (
  insert into command (command_id, name, description, subject_kind, subject_id, params,
                       user_name, correlation_id)
  values (%(command_id)s, %(name)s, %(description)s, %(subject_kind)s, %(subject_id)s, %(params)s,
          %(user_name)s, %(correlation_id)s)
  on conflict (command_id) do nothing
  returning command_id)
select procrastinate_defer_jobs_v1(array[row(
         'commands', 'run_command', 0, null, null,
         jsonb_build_object('command_id', command_id), null)::procrastinate_job_to_defer_v1])
  from submitted
"""
PROVE: Final[LiteralString] = "select pg_logical_emit_message(true, 'engine_pg', 'submitted')"
# Commands that nobody runs and no job will: their job was lost, or their runner gave them up.
REQUEUE: Final[LiteralString] = """
with stranded as (
  select c.command_id from command c
   where c.ended_at is null and c.member_id is null
     and c.submitted_at < clock_timestamp() - interval '2 s'
     and not exists (select from procrastinate_jobs j
                      where j.status = 'todo' and j.task_name = 'run_command'
                        and j.args->>'command_id' = c.command_id::text)
   order by c.submitted_at limit 200)
select procrastinate_defer_jobs_v1(array_agg(row(
         'commands', 'run_command', 0, null, null, jsonb_build_object('command_id', command_id),
         null)::procrastinate_job_to_defer_v1)) as jobs from stranded having count(*) > 0
"""
# A job whose worker is gone or silent stands in the way of nobody but itself.
DROP_ORPHANS: Final[LiteralString] = """
delete from procrastinate_jobs j
 where j.status = 'doing' and j.task_name = 'run_command'
   and not exists (select from procrastinate_workers w
                    where w.id = j.worker_id and w.last_heartbeat > now() - interval '10 min')
"""
SWEEP_GRANTS: Final[LiteralString] = "select lock_grants_sweep() as swept"
GET: Final[LiteralString] = "select * from command where command_id = %(command_id)s"
STEPS: Final[LiteralString] = """
select * from command_step where command_id = any(%(ids)s::uuid[]) order by command_id, number
"""
STATES: Final[LiteralString] = """
select command_id, accepted_at is not null as accepted, ended_at is not null as final
  from command where command_id = any(%(ids)s::uuid[])
"""


def _step(record: Record) -> StepView:
    return StepView(**{f.name: record[f.name] for f in fields(StepView)})


def _command(record: Record, steps: Sequence[StepView]) -> CommandView:
    values: dict[str, Any] = {
        f.name: record[f.name] for f in fields(CommandView) if f.name != "steps"
    }
    return CommandView(**values, steps=tuple(steps))


async def submit(tx: Tx, submission: Submission, *, description: str, subject_kind: str) -> None:
    """Write a command and its job; repeating a submission changes nothing."""
    written = await tx.run(
        SUBMIT,
        {
            "command_id": submission.command_id,
            "name": submission.name,
            "description": description,
            "subject_kind": subject_kind,
            "subject_id": submission.subject_id,
            "params": Jsonb(submission.params),
            "user_name": submission.user_name,
            "correlation_id": submission.correlation_id,
        },
    )
    if not written:  # it is there, but perhaps on no standby yet: our own commit shows it
        await tx.run(PROVE)


async def view(tx: Tx, command_id: UUID) -> CommandView:
    """Return a command with its steps; raises `NotFound`."""
    record = await tx.first(GET, {"command_id": command_id})
    if record is None:
        raise NotFound(f"there is no command {command_id}")
    steps = await tx.all(STEPS, {"ids": [command_id]})
    return _command(record, [_step(each) for each in steps])


async def states(tx: Tx, ids: Sequence[UUID]) -> list[Record]:
    """Return `command_id`, `accepted` and `final` of commands."""
    return await tx.all(STATES, {"ids": list(ids)})
