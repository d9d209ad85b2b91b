"""Jobs: queues with places of their own, one index to take many, no history of disposable runs."""

from alembic import op

revision = "0015"
down_revision = "0014"

COMMANDS = """
alter table command add column queue text not null default 'commands',
                    add column priority integer not null default 0;
comment on column command.queue is 'Whose places its jobs take; see the definition of the command.';
comment on column command.priority is 'Of its jobs, within the queue; the higher one goes first.';
"""

TAKING = """
create index procrastinate_jobs_taking_idx on procrastinate_jobs (queue_name, priority desc, id)
  where status = 'todo';
comment on index procrastinate_jobs_taking_idx is 'Not of Procrastinate: for taking many at once.';
"""

# A NOTIFY in a transaction makes its commit wait for all others: whoever rings after his commit says
# so. For all else a worker is rung by the engine's doorbell too, so that it needs no listener.
RINGING = """
create function queue_ring() returns trigger language plpgsql as $$
begin
  perform pg_notify(cluster_channel(), 'queue');
  return null;
end $$;
create trigger queue_ring after insert on procrastinate_jobs for each statement
  when (coalesce(current_setting('engine_pg.jobs', true), '') <> 'rung after commit')
  execute function queue_ring();
drop trigger procrastinate_jobs_notify_queue_job_inserted_v1 on procrastinate_jobs;
create trigger procrastinate_jobs_notify_queue_job_inserted_v1
  after insert on procrastinate_jobs for each row
  when (new.status = 'todo'
        and coalesce(current_setting('engine_pg.jobs', true), '') <> 'rung after commit')
  execute function procrastinate_notify_queue_job_inserted_v1();
"""

# The history of a command is its own row and its steps.
HISTORY = """
drop trigger procrastinate_trigger_status_events_insert_v1 on procrastinate_jobs;
create trigger procrastinate_trigger_status_events_insert_v1
  after insert on procrastinate_jobs for each row
  when (new.status = 'todo' and new.task_name <> 'run_command')
  execute function procrastinate_trigger_function_status_events_insert_v1();
drop trigger procrastinate_trigger_status_events_update_v1 on procrastinate_jobs;
create trigger procrastinate_trigger_status_events_update_v1
  after update of status on procrastinate_jobs for each row
  when (new.task_name <> 'run_command')
  execute function procrastinate_trigger_function_status_events_update_v1();
"""
# SQL functions that are called from PL/pgSQL are planned anew at each call, before PostgreSQL 18;
# these are called in every write.
CHEAPER = """
create or replace function cluster_command_owned(p_command uuid, p_member uuid, p_attempt integer)
returns boolean language plpgsql volatile as $$
-- By its key alone: a planner that sees more conditions takes a small partial index, and reads in
-- it what has ended since it was last vacuumed.
declare
  v_command command;
begin
  select * into v_command from command where command_id = p_command;
  return coalesce(v_command.member_id = p_member and v_command.attempt = p_attempt
                  and v_command.ended_at is null, false);
end $$;

create or replace function cluster_command_claim(p_command uuid, p_member uuid) returns jsonb
language plpgsql as $$
-- A row that somebody holds is not waited for: the batch carries others' operations too. With the
-- claim comes the command as it now is: who claims it first need not read it.
declare
  v_command command;
begin
  select * into v_command from command where command_id = p_command for update skip locked;
  if not found or v_command.member_id is not null or v_command.ended_at is not null
     or v_command.not_before > clock_timestamp() then
    return null;
  end if;
  update command set member_id = p_member, attempt = attempt + 1, state = 'running',
         started_at = coalesce(started_at, clock_timestamp())
   where command_id = p_command
  returning * into v_command;
  return jsonb_build_object('attempt', v_command.attempt, 'command', to_jsonb(v_command)
    || jsonb_build_object('overdue', coalesce(v_command.deadline_at < clock_timestamp(), false)));
end $$;

create or replace function cluster_channel(p_member regclass default 'member') returns text
language plpgsql stable as $$
-- Where the doorbells of a cluster ring: each of a database's clusters has a channel of its own, so
-- that none wakes the others. The engine's, in public, is named as ever.
declare
  v_schema name;
begin
  select s.nspname into v_schema from pg_class c join pg_namespace s on s.oid = c.relnamespace
   where c.oid = p_member;
  return case v_schema when 'public' then 'engine_pg' else left('engine_pg.' || v_schema, 63) end;
end $$;
"""

DEFER = """
create or replace function command_defer(p_command uuid) returns void language sql as $$
  select procrastinate_defer_jobs_v1(array[row(
           queue, 'run_command', priority, null, null, jsonb_build_object('command_id', command_id),
           null)::procrastinate_job_to_defer_v1])
    from command where command_id = p_command
$$;
"""

CONCLUDE = """
create function command_conclude(
  p_command uuid, p_number integer, p_name text, p_title text, p_kind text, p_attempt integer,
  p_token bigint, p_outcome jsonb, p_accepts boolean, p_event jsonb
) returns void language plpgsql as $$
-- The last step of a command is done, and with it the command. Repeating it changes nothing.
begin
  insert into command_step (command_id, number, name, title, kind, state, attempt, token, outcome,
                            ended_at)
  values (p_command, p_number, p_name, p_title, p_kind, 'finished', p_attempt, p_token, p_outcome,
          clock_timestamp())
  on conflict (command_id, number) do update
     set state = 'finished', outcome = excluded.outcome, ended_at = excluded.ended_at,
         attempt = excluded.attempt, token = excluded.token;
  update command set state = 'succeeded', ended_at = clock_timestamp(),
         accepted_at = case when p_accepts then coalesce(accepted_at, clock_timestamp())
                            else accepted_at end
   where command_id = p_command and state = 'running';  -- by its key, see cluster_command_owned
  if found and p_event is not null then
    insert into event_inbox (code, severity, description, correlation_id, user_name, command_id,
                             data_center_id, data_center_name, cluster_id, cluster_name, host_id,
                             host_name, vm_id, vm_name)
    select code, severity, description, correlation_id, user_name, command_id, data_center_id,
           data_center_name, cluster_id, cluster_name, host_id, host_name, vm_id, vm_name
      from jsonb_populate_record(null::event_inbox, p_event);
  end if;
end $$;
"""

DOWN = """
drop trigger procrastinate_trigger_status_events_update_v1 on procrastinate_jobs;
create trigger procrastinate_trigger_status_events_update_v1
  after update of status on procrastinate_jobs for each row
  execute function procrastinate_trigger_function_status_events_update_v1();
drop trigger procrastinate_trigger_status_events_insert_v1 on procrastinate_jobs;
create trigger procrastinate_trigger_status_events_insert_v1
  after insert on procrastinate_jobs for each row when (new.status = 'todo')
  execute function procrastinate_trigger_function_status_events_insert_v1();
drop trigger procrastinate_jobs_notify_queue_job_inserted_v1 on procrastinate_jobs;
create trigger procrastinate_jobs_notify_queue_job_inserted_v1
  after insert on procrastinate_jobs for each row when (new.status = 'todo')
  execute function procrastinate_notify_queue_job_inserted_v1();
drop trigger queue_ring on procrastinate_jobs;
drop function queue_ring;
drop index procrastinate_jobs_taking_idx;
drop function command_conclude;
create or replace function cluster_command_claim(p_command uuid, p_member uuid) returns jsonb
language plpgsql as $$
-- A row that somebody holds is not waited for: the batch carries others' operations too.
declare
  v_attempt integer;
begin
  perform 1 from command where command_id = p_command for update skip locked;
  if not found then
    return null;
  end if;
  update command set member_id = p_member, attempt = attempt + 1, state = 'running',
         started_at = coalesce(started_at, clock_timestamp())
   where command_id = p_command and member_id is null and ended_at is null
     and (not_before is null or not_before <= clock_timestamp())
  returning attempt into v_attempt;
  if not found then
    return null;
  end if;
  return jsonb_build_object('attempt', v_attempt);
end $$;
create or replace function cluster_command_owned(p_command uuid, p_member uuid, p_attempt integer)
returns boolean language sql volatile as $$
  select exists (select from command where command_id = p_command and member_id = p_member
                    and attempt = p_attempt and ended_at is null)
$$;
create or replace function cluster_channel(p_member regclass default 'member') returns text
language sql stable as $$
  select case s.nspname when 'public' then 'engine_pg' else left('engine_pg.' || s.nspname, 63) end
    from pg_class c join pg_namespace s on s.oid = c.relnamespace where c.oid = p_member
$$;
create or replace function command_defer(p_command uuid) returns void language sql as $$
  select procrastinate_defer_jobs_v1(array[row(
           'commands', 'run_command', 0, null, null, jsonb_build_object('command_id', p_command),
           null)::procrastinate_job_to_defer_v1])
$$;
alter table command drop column priority, drop column queue;
"""


def upgrade() -> None:
    for part in (COMMANDS, TAKING, RINGING, HISTORY, CHEAPER, DEFER, CONCLUDE):
        op.execute(part)


def downgrade() -> None:
    op.execute(DOWN)
