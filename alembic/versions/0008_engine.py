"""The engine on the cluster's newer protocol: joins the two branches; a broken lock is audited."""

from alembic import op

revision = "0008"
down_revision = ("0005", "0007")

BROKEN = """
create or replace function cluster_command_keep(p_command uuid) returns void language plpgsql as $$
begin
  perform 1 from command where command_id = p_command for no key update;
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
  perform pg_advisory_xact_lock(7005, 0);  -- events take turns
  insert into event (code, severity, description, user_name, command_id, correlation_id)
  values (9701, 'warning',
          format('The lock of %s/%s (%s) was broken by %s%s: %s', p_grant.kind, p_grant.id,
                 p_grant.mode, p_by, ', which ended: ' || v_command.description, p_reason),
          p_by, p_grant.command_id, coalesce(v_command.correlation_id, ''));
end $$;
"""

DOWN = """
create or replace function cluster_command_keep(p_command uuid) returns void language plpgsql as $$
begin
end $$;

create or replace function cluster_lock_broken(p_grant lock_grant, p_by text, p_reason text)
returns void language plpgsql as $$
begin
end $$;
"""


def upgrade() -> None:
    op.execute(BROKEN)


def downgrade() -> None:
    op.execute(DOWN)
