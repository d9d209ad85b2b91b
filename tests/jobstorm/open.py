"""What commands wait for that have not ended: a storm that does not settle tells it."""

from __future__ import annotations

from typing import Any, Final

from engine_pg.db.database import Database

WAITS: Final = """
select count(*)::integer as commands, c.attempt, c.deaths, m.node as runs_on, m.state as member,
       case when c.not_before > clock_timestamp()
            then ceil(extract(epoch from c.not_before - clock_timestamp()))::integer end as rests_s,
       j.status::text as job, j.worker_id, w.node as has_job
  from command c
  left join member m on m.member_id = c.member_id
  left join procrastinate_jobs j on j.args->>'command_id' = c.command_id::text
  left join member w on w.worker_id = j.worker_id and w.state = 'live'
 where c.ended_at is null
 group by 2, 3, 4, 5, 6, 7, 8, 9 order by 1 desc limit 30
"""
JOBS: Final = """
select count(*)::integer as jobs, j.status::text as status, j.worker_id, c.state
  from procrastinate_jobs j left join command c on c.command_id::text = j.args->>'command_id'
 group by 2, 3, 4 order by 1 desc limit 30
"""
MEMBERS: Final = """
select node, worker_id, draining, (clock_timestamp() - renewed_at)::text as silent from member
 where state = 'live'
"""
LEADERS: Final = "select name, member_id::text, term, acquired_at::text from leader"
STATEMENTS: Final = """
select pid, application_name, state, wait_event, left(query, 80) as query,
       extract(epoch from clock_timestamp() - xact_start)::float8 as open_s
  from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
   and state <> 'idle'
"""


async def reasons(db: Database) -> dict[str, list[dict[str, Any]]]:
    """Return who runs the open commands, who has their jobs, and what the server does."""
    asked = {
        "commands": WAITS,
        "jobs": JOBS,
        "members": MEMBERS,
        "leaders": LEADERS,
        "statements": STATEMENTS,
    }
    return {name: list(await db.once(query)) for name, query in asked.items()}
