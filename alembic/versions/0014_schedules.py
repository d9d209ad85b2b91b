"""Schedules, and each run of them."""

from alembic import op

revision = "0014"
down_revision = "0013"

TABLES = """
create table schedule (
  name text primary key check (name ~ '^[a-z0-9][a-z0-9._-]{0,99}$'),
  description text not null default '',
  kind text not null check (kind in ('work', 'command')),
  action text not null,
  subject_id uuid,
  params jsonb not null default '{}',
  cron text,
  every_s float8 check (every_s >= 1),
  zone text not null default 'UTC',
  anchor_at timestamptz not null default date_trunc('second', clock_timestamp()),
  starts_at timestamptz,
  ends_at timestamptz,
  jitter_s float8 not null default 0 check (jitter_s >= 0),
  misfire text not null default 'fire_once' check (misfire in ('fire_once', 'fire_all', 'skip')),
  grace_s float8 not null default 60 check (grace_s >= 0),
  overlap text not null default 'skip' check (overlap in ('allow', 'skip', 'queue_one')),
  keep_runs integer not null default 100 check (keep_runs >= 0),
  paused boolean not null default false,
  declared boolean not null default false,
  version bigint not null,
  changed_at timestamptz not null,
  changed_by text not null,
  due_at timestamptz,
  fires_at timestamptz,
  last_due_at timestamptz,
  last_fired_at timestamptz,
  fired bigint not null default 0,
  skipped bigint not null default 0,
  problem text not null default '',
  check ((cron is null) <> (every_s is null))
) with (fillfactor = 70);
comment on table schedule is
  'What fires at set times. Its next tick is due_at; it may fire from fires_at on, by this server''s clock. fires_at without due_at: the next tick is still to be found.';
create sequence schedule_version_seq cache 1;

create table schedule_run (
  run_id uuid primary key,
  schedule text not null references schedule (name) on delete cascade,
  cause text not null check (cause in ('tick', 'misfire', 'trigger')),
  first_due_at timestamptz not null,
  due_at timestamptz not null,
  ticks integer not null default 1,
  state text not null check (state in ('waiting', 'queued', 'running', 'succeeded', 'failed',
    'unknown', 'cancelled', 'dead', 'skipped')),
  reason text not null default '',
  fired_at timestamptz not null default clock_timestamp(),
  fired_by text not null default '',
  command_id uuid,
  member_id uuid,
  node text,
  attempt integer not null default 0,
  started_at timestamptz,
  ended_at timestamptz,
  outcome text not null default ''
);
comment on column schedule_run.ticks is
  'For how many ticks it stands, first_due_at to due_at: of missed ones it may be more than one.';
create unique index schedule_run_tick_idx on schedule_run (schedule, due_at) where cause <> 'trigger';
create index schedule_run_history_idx on schedule_run (schedule, fired_at desc);
create index schedule_run_open_idx on schedule_run (schedule)
  where state in ('waiting', 'queued', 'running');
"""

FUNCTIONS = """
create function schedule_definition(p_row schedule) returns jsonb language sql stable as $$
-- What people define, without where it stands.
  select to_jsonb(p_row) - '{version,changed_at,changed_by,due_at,fires_at,last_due_at,last_fired_at,fired,skipped,problem}'::text[]
$$;

create function schedule_timing(p_row schedule) returns jsonb language sql stable as $$
  select jsonb_build_array(p_row.cron, p_row.every_s, p_row.zone, p_row.anchor_at, p_row.starts_at,
                           p_row.ends_at, p_row.jitter_s, p_row.paused)
$$;

create function schedule_stamp() returns trigger language plpgsql as $$
-- Whoever writes, psql included: a new definition has a new version, and when its times are others,
-- the next tick is found anew. A tick that is due outlives every other change.
begin
  if tg_op = 'UPDATE' and schedule_definition(new) = schedule_definition(old) then
    return new;
  end if;
  if tg_op = 'INSERT' or schedule_timing(new) <> schedule_timing(old) then
    new.due_at := null;
    new.fires_at := clock_timestamp();
  end if;
  new.problem := '';
  new.version := nextval('schedule_version_seq');
  new.changed_at := clock_timestamp();
  new.changed_by := coalesce(nullif(current_setting('engine_pg.changed_by', true), ''), session_user);
  return new;
end $$;

create function schedule_audit() returns trigger language plpgsql as $$
declare
  v_name text := coalesce(new.name, old.name);
  v_by text := coalesce(nullif(current_setting('engine_pg.changed_by', true), ''), session_user);
  v_reason text := coalesce(current_setting('engine_pg.reason', true), '');
  v_what text := case tg_op when 'INSERT' then 'added' when 'DELETE' then 'removed' else 'changed' end;
begin
  if tg_op = 'UPDATE' then
    if new.version = old.version then
      return null;
    elsif new.paused <> old.paused then
      v_what := case when new.paused then 'paused' else 'resumed' end;
    end if;
  end if;
  if not (tg_op = 'INSERT' and new.declared) then
    insert into event_inbox (code, severity, description, user_name)
    values (9723, 'normal', format('The schedule %s was %s by %s%s', v_name, v_what, v_by,
            case when v_reason = '' then '.' else ': ' || v_reason end), v_by);
  end if;
  perform pg_notify(cluster_channel(), 'schedule');
  return null;
end $$;

create function schedule_failed() returns trigger language plpgsql as $$
-- The first of several failures in a row is an event.
begin
  if coalesce((select state from schedule_run r where r.schedule = new.schedule
                  and r.state in ('succeeded', 'failed') and r.run_id <> new.run_id
                order by ended_at desc limit 1), 'succeeded') = 'succeeded' then
    insert into event_inbox (code, severity, description)
    values (9724, 'warning', format('The schedule %s failed: %s', new.schedule, new.outcome));
  end if;
  return null;
end $$;

create function schedule_run_ring() returns trigger language plpgsql as $$
-- Nodes ring after their commit; whoever else lets a work begin does not know about bells.
begin
  if current_setting('engine_pg.rings', true) is distinct from 'after commit' then
    perform pg_notify(cluster_channel(), 'work');
  end if;
  return null;
end $$;

create trigger schedule_run_ring after insert or update of state on schedule_run for each row
  when (new.state = 'queued' and new.command_id is null) execute function schedule_run_ring();
create trigger schedule_failed after update on schedule_run for each row
  when (new.command_id is null and new.state = 'failed' and old.state <> 'failed') execute function schedule_failed();
create trigger schedule_stamp before insert or update on schedule
  for each row execute function schedule_stamp();
create trigger schedule_audit after insert or update or delete on schedule
  for each row execute function schedule_audit();
"""

DOWN = """
drop table schedule_run;
drop function schedule_failed, schedule_run_ring;
drop trigger schedule_audit on schedule;
drop trigger schedule_stamp on schedule;
drop function schedule_definition(schedule), schedule_timing(schedule), schedule_audit, schedule_stamp;
drop table schedule;
drop sequence schedule_version_seq;
"""


def upgrade() -> None:
    op.execute(TABLES)
    op.execute(FUNCTIONS)
    op.execute("select feed_attach('schedule')")


def downgrade() -> None:
    op.execute("select feed_detach('schedule')")
    op.execute(DOWN)
