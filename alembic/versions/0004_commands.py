"""Commands and their steps, and what ending a member means for them."""

from alembic import op

revision = "0004"
down_revision = "0003"

TABLES = """
create table command (
  command_id uuid primary key,
  name text not null,
  description text not null,
  subject_kind text not null,
  subject_id uuid not null,
  params jsonb not null default '{}',
  user_name text not null default '',
  correlation_id text not null default '',
  state text not null default 'queued'
    check (state in ('queued', 'running', 'succeeded', 'failed', 'unknown')),
  member_id uuid references member,
  attempt integer not null default 0,
  error_kind text,
  error text,
  submitted_at timestamptz not null default clock_timestamp(),
  started_at timestamptz,
  accepted_at timestamptz,
  ended_at timestamptz,
  constraint command_end_check check ((ended_at is not null) = (state in ('succeeded', 'failed', 'unknown')))
);
create index command_open_idx on command (submitted_at) where ended_at is null;
create index command_member_idx on command (member_id) where member_id is not null;
create index command_submitted_idx on command (submitted_at);
create index command_correlation_id_idx on command (correlation_id) where correlation_id <> '';
comment on column command.member_id is 'Who runs it; null: nobody yet, or an adopter is awaited.';
comment on column command.attempt is 'Rises with each claim: a superseded runner is known by its lower one.';

create table command_step (
  command_id uuid not null references command on delete cascade,
  number integer not null,
  name text not null,
  title text not null,
  kind text not null check (kind in ('validating', 'executing', 'finalizing')),
  state text not null check (state in ('started', 'finished', 'failed', 'compensated')),
  attempt integer not null,
  token bigint,
  intent jsonb,
  outcome jsonb,
  error text,
  started_at timestamptz not null default clock_timestamp(),
  ended_at timestamptz,
  primary key (command_id, number)
);
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
  returning attempt into v_attempt;
  if not found then
    return null;
  end if;
  return jsonb_build_object('attempt', v_attempt);
end $$;

create or replace function cluster_command_vacate(p_command uuid, p_member uuid) returns boolean
language plpgsql as $$
begin
  update command set member_id = null
   where command_id = p_command and member_id = p_member and ended_at is null;
  return found;
end $$;

create function lock_grants_sweep() returns integer language plpgsql as $$
-- Grants that await an adopter whom nobody needs any more: their command is over, or gone. One that
-- somebody has a hand on is not waited for: he may wait for what we hold.
declare
  v_swept integer;
begin
  delete from lock_grant where (kind, id, token) in (
    select g.kind, g.id, g.token from lock_grant g where g.member_id is null
       and not exists (select from command c
                        where c.command_id = g.command_id and c.ended_at is null)
       for update of g skip locked);
  get diagnostics v_swept = row_count;
  return v_swept;
end $$;

create or replace function cluster_commands_kept(p_member uuid, p_commands uuid[]) returns void
language plpgsql as $$
begin
  delete from lock_grant g using command c
   where g.member_id = p_member and c.command_id = g.command_id and c.ended_at is not null
     and g.command_id <> all (p_commands);
  update command set member_id = null
   where member_id = p_member and ended_at is null and command_id <> all (p_commands);
end $$;

create or replace function cluster_command_owned(p_command uuid, p_member uuid, p_attempt integer)
returns boolean language sql volatile as $$
  select exists (select from command where command_id = p_command and member_id = p_member
                    and attempt = p_attempt and ended_at is null)
$$;

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

create trigger command_change after insert or update or delete on command
  for each row execute function change_append('command_id');
create trigger leader_change after insert or update or delete on leader
  for each row execute function change_append('name');
create trigger member_change after insert or delete on member
  for each row execute function change_append('member_id');
create trigger member_state_change after update on member for each row
  when (old.state is distinct from new.state or old.draining is distinct from new.draining
        or old.session_number is distinct from new.session_number)
  execute function change_append('member_id');
"""

DOWN = """
drop function lock_grants_sweep;
drop trigger member_state_change on member;
drop trigger member_change on member;
drop trigger leader_change on leader;
drop table command_step, command;
create or replace function cluster_member_ended(p_member uuid) returns void language plpgsql as $$
begin
end $$;
create or replace function cluster_command_vacate(p_command uuid, p_member uuid) returns boolean
language plpgsql as $$
begin
  return true;
end $$;
create or replace function cluster_commands_kept(p_member uuid, p_commands uuid[]) returns void
language plpgsql as $$
begin
end $$;
create or replace function cluster_command_claim(p_command uuid, p_member uuid) returns jsonb
language plpgsql as $$
begin
  return '{}';
end $$;
create or replace function cluster_command_owned(p_command uuid, p_member uuid, p_attempt integer) returns boolean
language sql volatile as $$ select true $$;
"""


def upgrade() -> None:
    op.execute(TABLES)
    op.execute(FUNCTIONS)


def downgrade() -> None:
    op.execute(DOWN)
