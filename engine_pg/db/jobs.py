"""The queue's jobs, many in one statement: what has ended goes, what is to be done comes.

Stock Procrastinate fetches and finishes one job at a time, in a transaction each. Here one
statement and one commit do both for all of a worker's free places, and it may be repeated: a job
whose fetch was committed and never heard of is given to the same worker again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, LiteralString
from uuid import UUID

import psycopg
from typing_extensions import override

from engine_pg.db.database import Database
from engine_pg.db.wire import bounded

TASK: Final = "run_command"
TAKE: Final[LiteralString] = """
with ended as (
  delete from procrastinate_jobs
   where id = any(%(ended)s::bigint[]) and worker_id = %(worker)s and status = 'doing'),
unheard as (
  select id, queue_name, attempts, args from procrastinate_jobs
   where worker_id = %(worker)s and status = 'doing' and id <> all(%(known)s::bigint[])),
room as (
  select name, places - (select count(*) from unheard u where u.queue_name = name) as places
    from unnest(%(queues)s::text[], %(places)s::integer[]) as r(name, places)),
chosen as materialized (
  select j.id from room r cross join lateral (
    select id from procrastinate_jobs
     where status = 'todo' and queue_name = r.name and task_name = 'run_command'
       and (scheduled_at is null or scheduled_at <= now())
     order by priority desc, id limit greatest(r.places, 0) for update skip locked) j),
taken as (
  update procrastinate_jobs j set status = 'doing', worker_id = %(worker)s
    from chosen c where j.id = c.id
  returning j.id, j.queue_name, j.attempts, j.args)
select * from taken union all select * from unheard
"""
PUT_BACK: Final[LiteralString] = """
with ended as (
  delete from procrastinate_jobs
   where id = any(%(ended)s::bigint[]) and worker_id = %(worker)s and status = 'doing')
update procrastinate_jobs set status = 'todo', attempts = attempts + 1, worker_id = null
 where worker_id = %(worker)s and status = 'doing' and id <> all(%(ended)s::bigint[])
returning id
"""
PLAN_ONCE: Final = "set plan_cache_mode = force_generic_plan"
_CONFIGURE_S: Final = 1.0


class QueueDatabase(Database):
    """Plans the queue's few statements once: each time anew takes longer than running them."""

    @override
    async def _configure(self, connection: psycopg.AsyncConnection[Any]) -> None:
        await super()._configure(connection)
        await bounded(connection, connection.execute(PLAN_ONCE), _CONFIGURE_S)


@dataclass(frozen=True, slots=True)
class Taken:
    """A job that a worker was given."""

    job_id: int
    queue: str
    attempts: int
    command_id: UUID


class Ledger:
    """Which jobs a worker has, which of them have ended and are to go."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._ended: set[int] = set()

    @property
    def owes(self) -> bool:
        """Whether ended jobs are still in the queue."""
        return bool(self._ended)

    def end(self, job_id: int) -> None:
        """Let a job go with the next statement."""
        self._ended.add(job_id)

    async def take(
        self, worker_id: int, places: Mapping[str, int], running: Collection[int]
    ) -> list[Taken]:
        """Give back what has ended and take what there is, for so many places of each queue."""
        ended = list(self._ended)
        params: dict[str, Any] = {
            "worker": worker_id,
            "ended": ended,
            "known": [*running, *ended],
            "queues": list(places),
            "places": list(places.values()),
        }
        rows = await self._db.once(TAKE, params)
        self._ended.difference_update(ended)
        return [
            Taken(row["id"], row["queue_name"], row["attempts"], UUID(row["args"]["command_id"]))
            for row in rows
        ]

    async def give_back(self, worker_id: int) -> int:
        """Put everything back that a worker has and did not end; return how many jobs that was."""
        ended = list(self._ended)
        rows = await self._db.once(PUT_BACK, {"worker": worker_id, "ended": ended})
        self._ended.difference_update(ended)
        return len(rows)
