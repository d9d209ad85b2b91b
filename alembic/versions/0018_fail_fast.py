"""A parent hears of the first child that fails, where its step says so."""

from alembic import op

revision = "0018"
down_revision = "0017"
phase = "expand"

CHILD_ENDED = """
create or replace function command_child_ended() returns trigger language plpgsql as $$
-- The last child to end has its parent run again, and so does one that fails, where the parent is
-- to cancel the others then. One after the other, for each to see those before.
declare
  v_total integer;
  v_ended integer;
  v_fail_fast boolean;
begin
  perform 1 from command where command_id = new.parent_id and ended_at is null for no key update;
  if not found then
    return null;
  end if;
  select count(*), count(*) filter (where ended_at is not null) into v_total, v_ended
    from command where parent_id = new.parent_id;
  update command_step set progress = v_ended::real / v_total,
         message = format('%s of %s have ended', v_ended, v_total)
   where command_id = new.parent_id and state = 'started'
  returning coalesce((intent->>'fail_fast')::boolean, false) into v_fail_fast;
  if v_ended = v_total or (v_fail_fast and new.state <> 'succeeded') then
    perform command_defer(new.parent_id);
  end if;
  return null;
end $$;
"""

DOWN = """
create or replace function command_child_ended() returns trigger language plpgsql as $$
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
"""


def upgrade() -> None:
    op.execute(CHILD_ENDED)


def downgrade() -> None:
    op.execute(DOWN)
