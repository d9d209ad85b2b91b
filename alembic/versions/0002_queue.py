"""Procrastinate's schema of 3.10, vendored: a revision must not change with an installed package."""

from pathlib import Path

from alembic import op

revision = "0002"
down_revision = "0001"

SCHEMA = Path(__file__).parents[1] / "sql" / "procrastinate_3.10.sql"

DOWN = """
drop table procrastinate_events, procrastinate_periodic_defers, procrastinate_jobs,
  procrastinate_workers cascade;
do $$
declare
  v_function regprocedure;
begin
  for v_function in select oid from pg_proc where proname like 'procrastinate\\_%'
                       and pronamespace = current_schema()::regnamespace loop
    execute format('drop function %s cascade', v_function);
  end loop;
end $$;
drop type procrastinate_job_to_defer_v1, procrastinate_job_event_type, procrastinate_job_status;
"""


def upgrade() -> None:
    op.execute(SCHEMA.read_text())


def downgrade() -> None:
    op.execute(DOWN)
