"""Locks in sets, waiting in order, breaking (on the cluster's own branch)."""

import re
from pathlib import Path

from alembic import op

revision = "0007"
down_revision = "0006"

VERSIONS = Path(__file__).parent
SQL = VERSIONS.parent / "sql"

DOWN = """
drop function cluster_batch, lock_break_finish, member_cut, lock_break, cluster_lock_broken,
  cluster_command_keep, cluster_channel, lock_withdraw,
  lock_acquire, lock_refuse, lock_release, lock_advisory_release, lock_heads, lock_in_the_way,
  lock_is_awaited, lock_is_granted, lock_unclaim, lock_follow, member_resume;
drop table lock_ticket;
drop sequence lock_ticket_seq;
drop index lock_grant_following_idx, lock_grant_member_idx, lock_grant_key_idx;
alter table lock_grant drop column broken_at, drop column broken_by, drop constraint lock_grant_pkey,
  add constraint lock_grant_pkey primary key (kind, id, token),
  add constraint lock_grant_member_id_fkey foreign key (member_id) references member;
create index lock_grant_member_idx on lock_grant (member_id, advisory);
"""
BEFORE = (
    "member_resume",
    "member_end",
    "lock_conflicts",
    "lock_advisory_undo",
    "lock_acquire",
    "lock_release",
    "lock_follow",
    "lock_unclaim",
    "cluster_batch",
    "fence_enter",
)


def function_of_0001(name: str) -> str:
    text = (VERSIONS / "0001_cluster.py").read_text()
    found = re.search(rf"create (function {name}\(.*?\$\$;)", text, re.DOTALL)
    assert found, name
    return f"create or replace {found[1]}"


def upgrade() -> None:
    op.execute((SQL / "0007_locks.sql").read_text())
    op.execute((SQL / "0007_session.sql").read_text())


def downgrade() -> None:
    op.execute(DOWN)
    op.execute("drop function gate_shut")
    for name in BEFORE:
        op.execute(function_of_0001(name))
