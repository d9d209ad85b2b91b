"""The inventory's tables: one definition feeds queries, search and `alembic check`."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.schema import SchemaItem

NAMING: Final = {
    "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "ck": "%(table_name)s_%(constraint_name)s_check",
    "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
    "pk": "%(table_name)s_pkey",
}
metadata: Final = MetaData(naming_convention=NAMING)

HOST_STATUSES: Final = (
    "installing", "install_failed", "unassigned", "connecting", "up", "non_responsive",
    "non_operational", "preparing_for_maintenance", "maintenance", "error",
)  # fmt: skip
VM_STATUSES: Final = (
    "down", "wait_for_launch", "powering_up", "up", "paused", "powering_down",
    "reboot_in_progress", "migrating", "saving_state", "restoring_state", "suspended",
    "image_locked", "not_responding", "unknown",
)  # fmt: skip
SEVERITIES: Final = ("normal", "warning", "error", "alert")


def _status(*values: str) -> str:
    return "status in ({})".format(", ".join(f"'{value}'" for value in values))


def _named() -> list[Column[str]]:
    return [
        Column("name", Text, nullable=False),
        Column("description", Text, nullable=False, server_default=text("''")),
        Column("comment", Text, nullable=False, server_default=text("''")),
    ]


def _kept() -> list[Column[object]]:
    """Return what each row keeps: elements of the API that the engine only echoes, its version."""
    return [
        Column("attrs", JSONB, nullable=False, server_default=text("'{}'")),
        Column("version", BigInteger, nullable=False, server_default=text("1")),
        Column("created_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    ]


data_center: Final = Table(
    "data_center",
    metadata,
    Column("data_center_id", Uuid, primary_key=True),
    *_named(),
    Column("local", Boolean, nullable=False, server_default=text("false")),
    Column("status", Text, nullable=False, server_default=text("'up'")),
    *_kept(),
    Index("data_center_name_key", text("lower(name)"), unique=True),
)

cluster: Final = Table(
    "cluster",
    metadata,
    Column("cluster_id", Uuid, primary_key=True),
    Column("data_center_id", Uuid, ForeignKey("data_center.data_center_id"), nullable=False),
    *_named(),
    Column("cpu_architecture", Text, nullable=False, server_default=text("'x86_64'")),
    Column("cpu_type", Text, nullable=False, server_default=text("''")),
    *_kept(),
    Index("cluster_name_key", text("lower(name)"), unique=True),
    Index("cluster_data_center_id_idx", "data_center_id"),
)

host: Final = Table(
    "host",
    metadata,
    Column("host_id", Uuid, primary_key=True),
    Column("cluster_id", Uuid, ForeignKey("cluster.cluster_id"), nullable=False),
    *_named(),
    Column("address", Text, nullable=False),
    Column("port", Integer, nullable=False, server_default=text("54321")),
    Column("status", Text, nullable=False),
    Column("status_detail", Text, nullable=False, server_default=text("''")),
    Column("hardware_id", Uuid),
    Column("boot_id", Text, nullable=False, server_default=text("''")),
    Column("fencing", Text, nullable=False, server_default=text("'none'")),
    Column("cpu_sockets", Integer, nullable=False, server_default=text("0")),
    Column("cpu_cores", Integer, nullable=False, server_default=text("0")),
    Column("cpu_threads", Integer, nullable=False, server_default=text("0")),
    Column("cpu_model", Text, nullable=False, server_default=text("''")),
    Column("memory_bytes", BigInteger, nullable=False, server_default=text("0")),
    Column("software_version", Text, nullable=False, server_default=text("''")),
    *_kept(),
    CheckConstraint(_status(*HOST_STATUSES), name="status"),
    CheckConstraint("port between 1 and 65535", name="port"),
    Index("host_name_key", text("lower(name)"), unique=True),
    Index("host_address_key", "address", "port", unique=True),
    Index("host_cluster_id_idx", "cluster_id"),
)

host_statistics: Final = Table(
    "host_statistics",
    metadata,
    Column("host_id", Uuid, ForeignKey("host.host_id", ondelete="CASCADE"), primary_key=True),
    Column("cpu_percent", Double, nullable=False, server_default=text("0")),
    Column("memory_free_bytes", BigInteger, nullable=False, server_default=text("0")),
    Column("vm_active", Integer, nullable=False, server_default=text("0")),
    Column("vm_count", Integer, nullable=False, server_default=text("0")),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("seen_at", DateTime(timezone=True)),
)

vm: Final = Table(
    "vm",
    metadata,
    Column("vm_id", Uuid, primary_key=True),
    Column("cluster_id", Uuid, ForeignKey("cluster.cluster_id"), nullable=False),
    Column("template_id", Uuid, nullable=False),
    *_named(),
    Column("status", Text, nullable=False, server_default=text("'down'")),
    Column("host_id", Uuid, ForeignKey("host.host_id")),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("cpu_sockets", Integer, nullable=False, server_default=text("1")),
    Column("cpu_cores", Integer, nullable=False, server_default=text("1")),
    Column("cpu_threads", Integer, nullable=False, server_default=text("1")),
    Column("os_type", Text, nullable=False, server_default=text("'other'")),
    Column("vm_type", Text, nullable=False, server_default=text("'server'")),
    Column("started_at", DateTime(timezone=True)),
    Column("stopped_at", DateTime(timezone=True)),
    Column("stop_reason", Text, nullable=False, server_default=text("''")),
    *_kept(),
    CheckConstraint(_status(*VM_STATUSES), name="status"),
    CheckConstraint("memory_bytes > 0", name="memory_bytes"),
    CheckConstraint("cpu_sockets > 0 and cpu_cores > 0 and cpu_threads > 0", name="cpu"),
    Index("vm_name_key", text("lower(name)"), unique=True),
    Index("vm_cluster_id_idx", "cluster_id"),
    Index("vm_host_id_idx", "host_id", postgresql_where=text("host_id is not null")),
)


def _told() -> list[SchemaItem]:
    """Return what an event tells; names stand beside ids, for things that may be gone."""
    severities = ", ".join(f"'{severity}'" for severity in SEVERITIES)
    now = text("clock_timestamp()")
    return [
        Column("code", Integer, nullable=False),
        Column("severity", Text, nullable=False, server_default=text("'normal'")),
        Column("at", DateTime(timezone=True), nullable=False, server_default=now),
        Column("description", Text, nullable=False),
        Column("correlation_id", Text, nullable=False, server_default=text("''")),
        Column("origin", Text, nullable=False, server_default=text("'engine_pg'")),
        Column("custom_id", Integer, nullable=False, server_default=text("-1")),
        Column("user_name", Text, nullable=False, server_default=text("''")),
        Column("command_id", Uuid),
        Column("data_center_id", Uuid),
        Column("data_center_name", Text),
        Column("cluster_id", Uuid),
        Column("cluster_name", Text),
        Column("host_id", Uuid),
        Column("host_name", Text),
        Column("vm_id", Uuid),
        Column("vm_name", Text),
        CheckConstraint(f"severity in ({severities})", name="severity"),
    ]


event_inbox: Final = Table(
    "event_inbox",
    metadata,
    Column("inbox_id", BigInteger, Identity(always=True), primary_key=True),
    *_told(),
    comment="Events that were committed and have no number yet; events_number moves them to event.",
)

event: Final = Table(
    "event",
    metadata,
    Column("event_id", BigInteger, Identity(always=True), primary_key=True),
    *_told(),
    Index(
        "event_correlation_id_idx", "correlation_id", postgresql_where=text("correlation_id <> ''")
    ),
    Index("event_at_idx", "at"),
)
