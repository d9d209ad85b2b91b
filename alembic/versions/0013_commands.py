"""Commands that are asked for once, cancelled, bounded in time, given up, and made of others."""

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

COMMANDS = """
alter table command
  add column deadline_at timestamptz,
  add column cancel_asked_at timestamptz,
  add column cancel_asked_by text,
  add column deaths integer not null default 0,
  add column not_before timestamptz,
  add column parent_id uuid,
  add column retry_of uuid,
  drop constraint command_state_check,
  drop constraint command_end_check,
  add constraint command_state_check check
    (state in ('queued', 'running', 'succeeded', 'failed', 'unknown', 'cancelled', 'dead')),
  add constraint command_end_check check ((ended_at is not null) =
    (state in ('succeeded', 'failed', 'unknown', 'cancelled', 'dead')));
create index command_parent_idx on command (parent_id) where parent_id is not null;
comment on column command.deaths is
  'How many runners have ended while they ran it, since it last came a step further.';
comment on column command.not_before is 'It is not claimed before: its runners keep ending.';
comment on column command.parent_id is 'The command that asked for it and waits for its end.';
comment on column command.retry_of is 'The command that it repeats, which had ended.';

alter table command_step add column progress real, add column message text;
"""

FUNCTIONS = """
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

create function command_pause(p_deaths integer) returns interval language sql immutable as $$
-- How long a command rests whose runners have ended so many times: the first adopter comes at once.
  select case when p_deaths > 1 then least(60, 4 ^ (p_deaths - 2)) * interval '1 s' end
$$;

create or replace function cluster_member_ended(p_member uuid) returns void language plpgsql as $$
-- Its open commands await an adopter, under the grants that stand; its queue jobs go back.
begin
  delete from lock_grant g using command c
   where g.member_id = p_member and c.command_id = g.command_id and c.ended_at is not null;
  update command set member_id = null, deaths = deaths + 1,
         not_before = clock_timestamp() + command_pause(deaths + 1)
   where member_id = p_member and ended_at is null;
  -- Not procrastinate_retry_job: it raises for a job that somebody finishes at this instant.
  update procrastinate_jobs set status = 'todo', attempts = attempts + 1, worker_id = null
   where id in (select j.id from procrastinate_jobs j join member m on m.worker_id = j.worker_id
                 where m.member_id = p_member and j.status = 'doing'
                   for update of j skip locked);
end $$;

create function command_defer(p_command uuid) returns void language sql as $$
  select procrastinate_defer_jobs_v1(array[row(
           'commands', 'run_command', 0, null, null, jsonb_build_object('command_id', p_command),
           null)::procrastinate_job_to_defer_v1])
$$;

create function command_cancel(p_command uuid, p_by text, p_unbegun boolean) returns void
language plpgsql as $$
-- Ask for the end of a command. What nobody has begun ends here, and is told; what waits for an
-- adopter or for its children is run, for somebody to reverse it.
declare
  v_command command;
begin
  update command
     set cancel_asked_at = clock_timestamp(), cancel_asked_by = p_by,
         state = case when p_unbegun then 'cancelled' else state end,
         ended_at = case when p_unbegun then clock_timestamp() end,
         error_kind = case when p_unbegun then 'Cancelled' else error_kind end,
         error = case when p_unbegun then format('cancelled by %s before it began', p_by) else error end
   where command_id = p_command and ended_at is null
  returning * into v_command;
  if p_unbegun then
    insert into event_inbox (code, severity, description, correlation_id, user_name, command_id)
    values (9722, 'normal', format('%s was cancelled by %s before it began.', v_command.description, p_by),
            v_command.correlation_id, p_by, p_command);
  elsif v_command.member_id is null then
    perform command_defer(p_command);
  end if;
  perform pg_notify(cluster_channel(), topic) from unnest(array['cancels', 'commands', 'events']) topic;
end $$;

create function command_progress(p_command uuid, p_number integer, p_fraction real, p_message text)
returns void language sql as $$
  update command_step set progress = p_fraction, message = p_message
   where command_id = p_command and number = p_number and state = 'started'
$$;

create function command_child_ended() returns trigger language plpgsql as $$
-- The last child to end has its parent run again. One after the other, for each to see those before.
declare
  v_total integer;
  v_ended integer;
begin
  perform 1 from command where command_id = new.parent_id and ended_at is null for no key update;
  if not found then
    return null;
  end if;
  select count(*), count(*) filter (where ended_at is not null) into v_total, v_ended
    from command where parent_id = new.parent_id;
  update command_step set progress = v_ended::real / v_total,
         message = format('%s of %s have ended', v_ended, v_total)
   where command_id = new.parent_id and state = 'started';
  if v_ended = v_total then
    perform command_defer(new.parent_id);
  end if;
  return null;
end $$;

create trigger command_child_ended after update on command for each row
  when (old.ended_at is null and new.ended_at is not null and new.parent_id is not null)
  execute function command_child_ended();
"""

DOWN = """
drop trigger command_child_ended on command;
drop function command_child_ended;
drop function command_progress, command_cancel, command_defer;
create or replace function cluster_member_ended(p_member uuid) returns void language plpgsql as $$
-- Its open commands await an adopter, under the grants that stand; its queue jobs go back.
begin
  delete from lock_grant g using command c
   where g.member_id = p_member and c.command_id = g.command_id and c.ended_at is not null;
  update command set member_id = null where member_id = p_member and ended_at is null;
  -- Not procrastinate_retry_job: it raises for a job that somebody finishes at this instant.
  update procrastinate_jobs set status = 'todo', attempts = attempts + 1, worker_id = null
   where id in (select j.id from procrastinate_jobs j join member m on m.worker_id = j.worker_id
                 where m.member_id = p_member and j.status = 'doing'
                   for update of j skip locked);
end $$;
drop function command_pause;
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
  returning attempt into v_attempt;
  if not found then
    return null;
  end if;
  return jsonb_build_object('attempt', v_attempt);
end $$;
alter table command_step drop column progress, drop column message;
update command set state = 'failed' where state in ('cancelled', 'dead');
alter table command
  drop constraint command_state_check,
  drop constraint command_end_check,
  add constraint command_state_check check
    (state in ('queued', 'running', 'succeeded', 'failed', 'unknown')),
  add constraint command_end_check check
    ((ended_at is not null) = (state in ('succeeded', 'failed', 'unknown'))),
  drop column deadline_at, drop column cancel_asked_at, drop column cancel_asked_by,
  drop column deaths, drop column not_before, drop column parent_id, drop column retry_of;
drop table request_key;
"""


def upgrade() -> None:
    op.execute(KEYS)
    op.execute(COMMANDS)
    op.execute(FUNCTIONS)


def downgrade() -> None:
    op.execute(DOWN)
