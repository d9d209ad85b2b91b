"""${message}."""

from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
phase = "expand"  # nodes of the release before work on it; "contract": they don't, run it when all are gone


def upgrade() -> None:
    ${upgrades if upgrades else "op.execute(UP)"}


def downgrade() -> None:
    ${downgrades if downgrades else "op.execute(DOWN)"}
