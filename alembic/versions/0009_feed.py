"""The change feed: what any attached table's rows turn into (on the cluster's own branch)."""

from pathlib import Path

from alembic import op

revision = "0009"
down_revision = "0007"

SQL = Path(__file__).parents[1] / "sql"

# The engine's own, of 0003, in a database that has it already: nobody has read it yet.
REPLACED = "drop table if exists change"
DOWN = """
drop function feed_trim, feed_attach, feed_detach, feed_resync, feed_key, feed_ring, feed_epoch;
drop function feed_append, feed_truncated cascade;  -- and the triggers that call them
drop table feed_reader, feed_horizon, change;
"""
# The engine's triggers go on appending to it.
BEFORE = """
do $$ begin
  if to_regproc('change_append') is not null then
    create table change (
      change_id bigint generated always as identity (cache 1) primary key,
      xid xid8 not null default pg_current_xact_id(),
      topic text not null,
      key text not null,
      op text not null check (op in ('insert', 'update', 'delete')),
      at timestamptz not null default clock_timestamp()
    ) with (autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 10000);
    create index change_xid_idx on change (xid);
  end if;
end $$
"""


def upgrade() -> None:
    op.execute(REPLACED)
    op.execute((SQL / "0009_feed.sql").read_text())


def downgrade() -> None:
    op.execute(DOWN)
    op.execute(BEFORE)
