"""Cluster settings, and who changed what when."""

from alembic import op

revision = "0012"
down_revision = "0011"

TABLES = """
create table setting (
  name text primary key,
  value jsonb check (jsonb_typeof(value) <> 'null'),
  version bigint not null,
  changed_at timestamptz not null,
  changed_by text not null
);
comment on table setting is
  'What all nodes go by in the place of their defaults (value null: the default). Each release knows its names and bounds.';

create sequence setting_version_seq cache 1;
create table setting_change (
  version bigint primary key,
  name text not null,
  old_value jsonb,
  new_value jsonb,
  changed_at timestamptz not null,
  changed_by text not null,
  reason text not null
);
create index setting_change_name_idx on setting_change (name, version);
"""

FUNCTIONS = """
create function setting_stamp() returns trigger language plpgsql as $$
-- Whoever writes, psql included. In turn: versions rise in the order of the commits.
begin
  perform pg_advisory_xact_lock(7006, 0);
  new.version := nextval('setting_version_seq');
  new.changed_at := clock_timestamp();
  new.changed_by := coalesce(nullif(current_setting('engine_pg.changed_by', true), ''), session_user);
  return new;
end $$;

create function setting_audit() returns trigger language plpgsql as $$
declare
  v_name text := coalesce(new.name, old.name);
  v_by text := coalesce(new.changed_by, nullif(current_setting('engine_pg.changed_by', true), ''), session_user);
  v_reason text := coalesce(current_setting('engine_pg.reason', true), '');
  v_old jsonb;
  v_new jsonb;
begin
  perform pg_advisory_xact_lock(7006, 0);
  if tg_op <> 'INSERT' then v_old := old.value; end if;
  if tg_op <> 'DELETE' then v_new := new.value; end if;
  insert into setting_change (version, name, old_value, new_value, changed_at, changed_by, reason)
  values (coalesce(new.version, nextval('setting_version_seq')), v_name, v_old, v_new,
          coalesce(new.changed_at, clock_timestamp()), v_by, v_reason);
  insert into event_inbox (code, severity, description, user_name)
  values (9711, 'normal',
          format('The setting %s was changed from %s to %s by %s%s', v_name,
                 coalesce(v_old #>> '{}', 'its default'), coalesce(v_new #>> '{}', 'its default'), v_by,
                 case when v_reason = '' then '.' else ': ' || v_reason end), v_by);
  perform pg_notify(cluster_channel(), 'setting');
  return null;
end $$;

create trigger setting_stamp before insert or update on setting
  for each row execute function setting_stamp();
create trigger setting_audit after insert or update or delete on setting
  for each row execute function setting_audit();
"""

DOWN = """
drop table setting_change, setting;
drop sequence setting_version_seq;
drop function setting_audit, setting_stamp;
"""


def upgrade() -> None:
    op.execute(TABLES)
    op.execute(FUNCTIONS)
    op.execute("select feed_attach('setting')")


def downgrade() -> None:
    op.execute("select feed_detach('setting')")
    op.execute(DOWN)
