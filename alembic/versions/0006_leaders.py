"""Where leaderships belong: weights, pins, resignations on request (on the cluster's own branch)."""

from alembic import op

revision = "0006"
down_revision = "0001"

TABLES = """
alter table member add column weight double precision not null default 1 check (weight >= 0);
comment on column member.weight is 'Share of the leaderships, beside the others'' weights; 0: none, while others lead.';
"""

DOWN = """
alter table member drop column weight;
"""


def upgrade() -> None:
    op.execute(TABLES)


def downgrade() -> None:
    op.execute(DOWN)
