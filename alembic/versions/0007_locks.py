"""Waiting in order: tickets; locks that an operator breaks (on the cluster's own branch)."""

from alembic import op

revision = "0007"
down_revision = "0006"

TABLES = """
create sequence lock_ticket_seq as bigint cache 1 no cycle;

create table lock_ticket (
  ticket bigint not null,
  kind text not null,
  id text not null,
  mode text not null check (mode in ('exclusive', 'shared')),
  member_id uuid not null references member,
  command_id uuid,
  user_name text not null default '',
  reason text not null default '',
  waiting_since timestamptz not null default clock_timestamp(),
  constraint lock_ticket_pkey primary key (kind, id, ticket)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
create index lock_ticket_member_idx on lock_ticket (member_id, ticket);
comment on table lock_ticket is
  'Who waits for a key, in the order of the tickets: one ticket for each request, one row for each key.';

alter table lock_grant add column broken_at timestamptz, add column broken_by text;
comment on column lock_grant.broken_at is
  'An operator broke it: no fence rests on it any more, and its holder is told to stop.';
"""

DOWN = """
alter table lock_grant drop column broken_at, drop column broken_by;
drop table lock_ticket;
drop sequence lock_ticket_seq;
"""


def upgrade() -> None:
    op.execute(TABLES)


def downgrade() -> None:
    op.execute(DOWN)
