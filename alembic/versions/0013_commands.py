"""Commands that are asked for once."""

from alembic import op

revision = "0013"
down_revision = "0012"

KEYS = """
create table request_key (
  user_id uuid not null,
  key text not null,
  digest text not null,
  command_id uuid not null,
  answer jsonb,
  claimed_at timestamptz not null default clock_timestamp(),
  primary key (user_id, key)
);
create index request_key_claimed_idx on request_key (claimed_at);
comment on table request_key is
  'Requests that were named by their sender, and the command that each of them became or becomes.';
comment on column request_key.digest is 'Of method, path, query and body: what the key stands for.';
comment on column request_key.answer is 'What was answered; null: nothing certain yet.';
"""


def upgrade() -> None:
    op.execute(KEYS)


def downgrade() -> None:
    op.execute("drop table request_key")
