"""What a DBA needs: upkeep of hot tables, which versions a schema serves, life after a restore.

Joins the cluster's branch, with its cheaper batches of locks.
"""

from alembic import op

revision = "0017"
down_revision = ("0015", "0016")
phase = "expand"

# A node that meets a newer schema than its own asks here whether that still serves it.
SERVES = """
create table schema_serves (
  only_row boolean primary key default true check (only_row),
  oldest text not null
);
insert into schema_serves (oldest) values ('0015');
comment on table schema_serves is
  'The oldest revision whose engines still work on this schema. Only a contraction raises it.';
"""

# Why, and what was measured: docs/decisions/0027. No table is rewritten; nobody is kept waiting.
UPKEEP = """
-- Each command writes its row five times, and its steps twice; the queue reads past what is dead.
alter table command set (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01,
  autovacuum_vacuum_threshold = 1000, autovacuum_analyze_scale_factor = 0.02);
alter table command_step set (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01,
  autovacuum_vacuum_threshold = 2000, autovacuum_analyze_scale_factor = 0.02);
-- A job is inserted, taken and deleted: the table is nearly empty, its dead rows are not.
alter table procrastinate_jobs set (autovacuum_vacuum_scale_factor = 0,
  autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
-- Rows live for milliseconds, and each request reads its key's pages: no vacuum may nap in between.
alter table lock_grant set (autovacuum_vacuum_cost_delay = 0);
alter table lock_ticket set (autovacuum_vacuum_cost_delay = 0);
alter table member set (autovacuum_vacuum_cost_delay = 0);
alter table leader set (fillfactor = 50, autovacuum_vacuum_scale_factor = 0,
  autovacuum_vacuum_threshold = 200);
-- Written by every look at every host.
alter table host_statistics set (autovacuum_vacuum_scale_factor = 0,
  autovacuum_vacuum_threshold = 500);
alter table vm set (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02,
  autovacuum_vacuum_threshold = 500);
alter table host set (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02,
  autovacuum_vacuum_threshold = 200);
-- The feed is read by its newest rows: index-only looks need a visibility map that follows.
alter table change set (autovacuum_vacuum_cost_delay = 1);
alter table event_inbox set (autovacuum_vacuum_cost_delay = 0);
alter table request_key set (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);
alter table api_token set (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
"""

RESTORED = """
create function cluster_tokens_end() returns bigint language sql volatile as $$
-- No fencing token above this one was ever handed out by this database.
  select (coalesce((select max(epoch_id) from cluster_epoch), 0) << 40) | last_value
    from fencing_token_seq
$$;

create function cluster_restored(p_above bigint, p_by text, p_reason text, p_strangers jsonb)
returns jsonb language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
-- The database went back to an earlier point. What it handed out since is in others' hands: an epoch
-- far above begins, and all that rests on memories of what is gone is ended. What runs where is left
-- to monitoring: it asks the hosts; p_strangers are VMs that run there and have no row here.
-- A definer's right, since nobody else may move epochs and numbers.
declare
  v_floor bigint := greatest(p_above, (select coalesce(max(epoch_id), 0) from cluster_epoch)) + 1000;
  v_epoch bigint;
  v_commands bigint;
  v_tokens bigint;
begin
  if v_floor >= 8388607 then
    raise exception 'epoch % leaves no room in a token', v_floor using errcode = '22003';
  end if;
  perform pg_advisory_xact_lock(7003, 0);
  insert into cluster_epoch (epoch_id, system_identifier, timeline, postmaster_started_at, marker)
  values (v_floor, 0, 0, clock_timestamp(), gen_random_uuid());
  -- The present life of the server may have an epoch already, by the same name as before.
  delete from cluster_epoch_marker;
  v_epoch := cluster_epoch_current();
  -- Whoever polls events by their numbers has seen higher ones.
  perform setval(pg_get_serial_sequence('event', 'event_id'),
                 (select last_value from event_event_id_seq) + 1000000);
  update command set state = 'unknown', ended_at = clock_timestamp(), member_id = null,
         error_kind = 'Restored',
         error = 'the database was restored to an earlier point: what became of it is seen at the hosts'
   where ended_at is null;
  get diagnostics v_commands = row_count;
  delete from procrastinate_jobs where task_name = 'run_command';
  update vm set status = 'unknown' where host_id is not null;
  update vm set status = 'down' where host_id is null and status not in ('down', 'suspended');
  update host set status = case status when 'installing' then 'install_failed' else 'connecting' end
   where status in ('installing', 'preparing_for_maintenance', 'unassigned');
  -- Who logged out, or was locked out, since then would be let in again.
  delete from api_token;
  get diagnostics v_tokens = row_count;
  insert into event_inbox (code, severity, description, user_name)
  values (9104, 'alert', format('The database was restored to an earlier point%s; epoch %s begins. '
          || '%s commands that were open have an unknown outcome; everybody logs in anew.',
          case when p_reason = '' then '' else ' (' || p_reason || ')' end, v_epoch, v_commands), p_by);
  insert into event_inbox (code, severity, description, user_name, host_id, host_name)
  select 9105, 'alert', format('Host %s runs VM %s, which was made after the point that was restored:'
         || ' there is no such VM any more. Stop it on the host.', s.host_name, s.vm_id), p_by,
         s.host_id, s.host_name
    from jsonb_to_recordset(p_strangers) as s(vm_id text, host_id uuid, host_name text);
  return jsonb_build_object('epoch', v_epoch, 'commands', v_commands, 'logins', v_tokens);
end $$;
revoke execute on function cluster_restored from public;
"""

DOWN = """
drop function cluster_restored, cluster_tokens_end;
drop table schema_serves;
alter table api_token reset (fillfactor, autovacuum_vacuum_scale_factor);
alter table request_key reset (fillfactor, autovacuum_vacuum_scale_factor);
alter table event_inbox reset (autovacuum_vacuum_cost_delay);
alter table change reset (autovacuum_vacuum_cost_delay);
alter table host reset (fillfactor, autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold);
alter table vm reset (fillfactor, autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold);
alter table host_statistics reset (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold);
alter table leader reset (fillfactor, autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold);
alter table member reset (autovacuum_vacuum_cost_delay);
alter table lock_ticket reset (autovacuum_vacuum_cost_delay);
alter table lock_grant reset (autovacuum_vacuum_cost_delay);
alter table procrastinate_jobs reset (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold,
  autovacuum_vacuum_cost_delay);
alter table command_step reset (fillfactor, autovacuum_vacuum_scale_factor,
  autovacuum_vacuum_threshold, autovacuum_analyze_scale_factor);
alter table command reset (fillfactor, autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold,
  autovacuum_analyze_scale_factor);
"""


def upgrade() -> None:
    for part in (SERVES, UPKEEP, RESTORED):
        op.execute(part)


def downgrade() -> None:
    op.execute(DOWN)
