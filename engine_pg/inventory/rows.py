"""The inventory's rows as the rest of the engine sees them: frozen, one field per column."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import cache
from typing import Any, TypeVar
from uuid import UUID

from engine_pg.ids import BLANK_TEMPLATE_ID


@dataclass(frozen=True, slots=True, kw_only=True)
class DataCenter:
    """A data center."""

    data_center_id: UUID
    name: str
    description: str = ""
    comment: str = ""
    local: bool = False
    status: str = "up"
    attrs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A cluster of hosts with one kind of processor."""

    cluster_id: UUID
    data_center_id: UUID
    name: str
    description: str = ""
    comment: str = ""
    cpu_architecture: str = "x86_64"
    cpu_type: str = ""
    attrs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A host; memory in bytes, `fencing` is what it enforces of tokens (`none` or `all`)."""

    host_id: UUID
    cluster_id: UUID
    name: str
    address: str
    port: int = 54321
    description: str = ""
    comment: str = ""
    status: str = "installing"
    status_detail: str = ""
    hardware_id: UUID | None = None
    boot_id: str = ""
    fencing: str = "none"
    cpu_sockets: int = 0
    cpu_cores: int = 0
    cpu_threads: int = 0
    cpu_model: str = ""
    memory_bytes: int = 0
    software_version: str = ""
    attrs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Vm:
    """A virtual machine; memory in bytes, `host_id` only while it runs or is being started."""

    vm_id: UUID
    cluster_id: UUID
    name: str
    template_id: UUID = BLANK_TEMPLATE_ID
    description: str = ""
    comment: str = ""
    status: str = "down"
    host_id: UUID | None = None
    memory_bytes: int = 1 << 30
    cpu_sockets: int = 1
    cpu_cores: int = 1
    cpu_threads: int = 1
    os_type: str = "other"
    vm_type: str = "server"
    created_at: datetime | None = None
    started_at: datetime | None = None
    stopped_at: datetime | None = None
    stop_reason: str = ""
    attrs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class HostStatistics:
    """What a host last told about itself; `failures` looks in a row have failed since."""

    host_id: UUID
    cpu_percent: float = 0.0
    memory_free_bytes: int = 0
    vm_active: int = 0
    vm_count: int = 0
    failures: int = 0
    seen_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened, for people and pollers; `event_id` rises."""

    event_id: int
    code: int
    severity: str
    at: datetime
    description: str
    correlation_id: str = ""
    origin: str = "engine_pg"
    custom_id: int = -1
    user_name: str = ""
    command_id: UUID | None = None
    data_center_id: UUID | None = None
    data_center_name: str | None = None
    cluster_id: UUID | None = None
    cluster_name: str | None = None
    host_id: UUID | None = None
    host_name: str | None = None
    vm_id: UUID | None = None
    vm_name: str | None = None


R = TypeVar("R", DataCenter, Cluster, Host, Vm, Event)


@cache
def _names(kind: type[Any]) -> frozenset[str]:
    return frozenset(f.name for f in fields(kind))


def row_of(kind: type[R], record: Mapping[str, Any]) -> R:
    """Make a row of `kind` from a database record; columns it doesn't know are left out."""
    names = _names(kind)
    return kind(**{key: value for key, value in record.items() if key in names})
