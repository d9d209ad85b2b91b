"""The engine's tables on the cluster's feed: joins the two branches, in the place of 0003's triggers."""

from alembic import op

revision = "0010"
down_revision = ("0008", "0009")

TABLES = ("data_center", "cluster", "host", "vm", "event", "host_statistics", "command")

# A member's row is written by every renewal: none of that is news.
ATTACHED = """
select feed_attach('member', without => '{renewal, renewed_at, expires_at}',
  news => '{state, draining, session_number, epoch_id, weight, worker_id, drain_heard_at}');
select feed_attach('leader', version => 'revision');
"""

DOWN = """
select feed_detach('member');
select feed_detach('leader');
create function change_append() returns trigger language plpgsql as $$
begin
  insert into change (topic, key, op)
  values (tg_table_name, to_jsonb(coalesce(new, old)) ->> tg_argv[0], lower(tg_op));
  return null;
end $$;
create trigger leader_change after insert or update or delete on leader
  for each row execute function change_append('name');
create trigger member_change after insert or delete on member
  for each row execute function change_append('member_id');
create trigger member_state_change after update on member for each row
  when (old.state is distinct from new.state or old.draining is distinct from new.draining
        or old.session_number is distinct from new.session_number)
  execute function change_append('member_id');
"""


def upgrade() -> None:
    op.execute("drop function change_append cascade")  # and the triggers that call it
    for name in TABLES:
        op.execute(f"select feed_attach('{name}')")
    op.execute(ATTACHED)


def downgrade() -> None:
    for name in TABLES:
        op.execute(f"select feed_detach('{name}')")
    op.execute(DOWN)
    for name in TABLES:
        key = "host_id" if name == "host_statistics" else f"{name}_id"
        op.execute(
            f"create trigger {name}_change after insert or update or delete on {name} "
            f"for each row execute function change_append('{key}')"
        )
