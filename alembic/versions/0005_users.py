"""Users, their tokens, and how often a login failed."""

from alembic import op

revision = "0005"
down_revision = "0004"

TABLES = """
create table app_user (
  user_id uuid primary key,
  name text not null,
  password_hash text not null,
  enabled boolean not null default true,
  created_at timestamptz not null default now(),
  changed_at timestamptz not null default now()
);
create unique index app_user_name_key on app_user (lower(name));

create table api_token (
  token_hash bytea primary key,
  user_id uuid not null references app_user on delete cascade,
  issued_at timestamptz not null default now(),
  expires_at timestamptz not null,
  last_used_at timestamptz not null default now()
);
create index api_token_user_id_idx on api_token (user_id);
create index api_token_expires_at_idx on api_token (expires_at);
comment on column api_token.token_hash is 'SHA-256 of the token, which is stored nowhere.';

create table auth_failure (
  bucket integer primary key check (bucket between 0 and 65535),
  failures integer not null,
  since timestamptz not null default clock_timestamp()
);
comment on table auth_failure is
  'Failed logins by a hash of the user name, known or not: however many names are tried, it stays small.';
"""


def upgrade() -> None:
    op.execute(TABLES)


def downgrade() -> None:
    op.execute("drop table auth_failure, api_token, app_user")
