"""What replicas need beside the inventory: steps, users and tokens on the feed; events in turn."""

from alembic import op

revision = "0011"
down_revision = "0010"

# Topics that begin with _ are for replicas alone: nobody outside is told of them.
ATTACHED = """
select feed_attach('command_step');
select feed_attach('app_user', without => '{password_hash}', topic => '_user');
select feed_attach('api_token', topic => '_token');
"""

# An event becomes visible with its writer's commit, in any order. Its public number is given to it
# afterwards, when it is moved: one mover at a time, so that no number is ever seen before a lower one.
EVENTS = """
create table event_inbox (
  inbox_id bigint generated always as identity,
  code integer not null,
  severity text default 'normal' not null,
  at timestamptz default clock_timestamp() not null,
  description text not null,
  correlation_id text default '' not null,
  origin text default 'engine_pg' not null,
  custom_id integer default -1 not null,
  user_name text default '' not null,
  command_id uuid,
  data_center_id uuid,
  data_center_name text,
  cluster_id uuid,
  cluster_name text,
  host_id uuid,
  host_name text,
  vm_id uuid,
  vm_name text,
  constraint event_inbox_pkey primary key (inbox_id),
  constraint event_inbox_severity_check check (severity in ('normal', 'warning', 'error', 'alert'))
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
comment on table event_inbox is
  'Events that were committed and have no number yet; events_number moves them to event.';

create function events_number() returns bigint language plpgsql as $$
-- Give their numbers to the events that are committed; return how many they were. The lock is also
-- that of the releases before, whose nodes write events themselves. What is moved is looked for in a
-- statement begun after the lock was taken: all that others have moved is then seen.
declare
  v_moved bigint;
begin
  if not exists (select from event_inbox) then
    return 0;
  end if;
  perform pg_advisory_xact_lock(7005, 0);
  with moved as (delete from event_inbox returning *)
  insert into event (code, severity, at, description, correlation_id, origin, custom_id, user_name,
                     command_id, data_center_id, data_center_name, cluster_id, cluster_name,
                     host_id, host_name, vm_id, vm_name)
  select code, severity, at, description, correlation_id, origin, custom_id, user_name,
         command_id, data_center_id, data_center_name, cluster_id, cluster_name,
         host_id, host_name, vm_id, vm_name
    from moved order by inbox_id;
  get diagnostics v_moved = row_count;
  return v_moved;
end $$;

create or replace function cluster_lock_broken(p_grant lock_grant, p_by text, p_reason text)
returns void language plpgsql as $$
-- The command ends first; what it had begun at a host is found out by monitoring.
declare
  v_command command;
begin
  update command set state = 'unknown', ended_at = clock_timestamp(), error_kind = 'LockBroken',
         error = format('the lock of %s/%s was broken by %s: %s', p_grant.kind, p_grant.id, p_by, p_reason)
   where command_id = p_grant.command_id and ended_at is null
  returning * into v_command;
  insert into event_inbox (code, severity, description, user_name, command_id, correlation_id)
  values (9701, 'warning',
          format('The lock of %s/%s (%s) was broken by %s%s: %s', p_grant.kind, p_grant.id,
                 p_grant.mode, p_by, ', which ended: ' || v_command.description, p_reason),
          p_by, p_grant.command_id, coalesce(v_command.correlation_id, ''));
end $$;
"""

DOWN = """
create or replace function cluster_lock_broken(p_grant lock_grant, p_by text, p_reason text)
returns void language plpgsql as $$
-- The command ends first; what it had begun at a host is found out by monitoring.
declare
  v_command command;
begin
  update command set state = 'unknown', ended_at = clock_timestamp(), error_kind = 'LockBroken',
         error = format('the lock of %s/%s was broken by %s: %s', p_grant.kind, p_grant.id, p_by, p_reason)
   where command_id = p_grant.command_id and ended_at is null
  returning * into v_command;
  perform pg_advisory_xact_lock(7005, 0);  -- events take turns
  insert into event (code, severity, description, user_name, command_id, correlation_id)
  values (9701, 'warning',
          format('The lock of %s/%s (%s) was broken by %s%s: %s', p_grant.kind, p_grant.id,
                 p_grant.mode, p_by, ', which ended: ' || v_command.description, p_reason),
          p_by, p_grant.command_id, coalesce(v_command.correlation_id, ''));
end $$;
select events_number();
drop function events_number;
drop table event_inbox;
select feed_detach('command_step');
select feed_detach('app_user');
select feed_detach('api_token');
"""


def upgrade() -> None:
    op.execute(ATTACHED)
    op.execute(EVENTS)


def downgrade() -> None:
    op.execute(DOWN)
