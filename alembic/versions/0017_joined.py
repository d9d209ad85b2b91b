"""The engine on the cheaper batches of locks: joins the two branches."""

revision = "0017"
down_revision = ("0015", "0016")


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
