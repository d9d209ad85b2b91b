"""What is known of the formation that this database runs on, and what proves a switchover."""

from alembic import op

revision = "0019"
down_revision = "0018"
phase = "expand"

TABLES = """
create table formation (
  name text primary key,
  monitor text not null check (monitor in ('up', 'away', 'none')),
  synchronous boolean not null,
  standby_names text not null default '',
  wanted_standbys bigint,
  primary_node text,
  nodes jsonb not null default '[]' check (jsonb_typeof(nodes) = 'array'),
  looked_at timestamptz not null default clock_timestamp(),
  monitor_seen_at timestamptz
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);
comment on table formation is
  'What the singleton formation-watch saw last: synchronous: each commit waits for a standby.';

create table formation_proof (
  switchover_id uuid primary key,
  number bigint not null,
  at timestamptz not null default clock_timestamp()
);
comment on table formation_proof is
  'The last write of each switchover that is under way: what was acknowledged must be there after it.';
"""

DOWN = """
drop table formation_proof;
drop table formation;
"""


def upgrade() -> None:
    op.execute(TABLES)
    op.execute("select feed_attach('formation', topic => '_formation')")


def downgrade() -> None:
    op.execute("select feed_detach('formation')")
    op.execute(DOWN)
