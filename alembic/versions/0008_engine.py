"""The engine on the cluster's newer protocol: joins the two branches."""

revision = "0008"
down_revision = ("0005", "0007")


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
