"""Hosts on the wire; a root password is neither kept nor shown."""

from __future__ import annotations

from typing import Final

from engine_pg.api.wire.kinds import BOOLEAN, LABEL, NAME, STRING, enum, integer, ref
from engine_pg.api.wire.shape import Shape, constant, filled, given, kept, shown

HOST: Final = Shape(
    "host",
    "hosts",
    "host_id",
    given("name", NAME),
    given("description", STRING),
    given("comment", STRING),
    given("address", LABEL),
    given("port", integer(1, 65535)),
    given("cluster", ref("clusters"), "cluster_id"),
    shown("status", STRING, "status"),
    filled("status_detail", STRING, "status_detail"),
    constant("type", STRING, "rhel"),
    constant("external_status", STRING, "ok"),
    filled("memory", integer(), "memory_bytes"),
    filled("max_scheduling_memory", integer(), "memory_bytes"),
    filled("cpu/name", STRING, "cpu_model"),
    filled("cpu/topology/sockets", integer(), "cpu_sockets"),
    filled("cpu/topology/cores", integer(), "cpu_cores"),
    filled("cpu/topology/threads", integer(), "cpu_threads"),
    filled("version/full_version", STRING, "software_version"),
    kept("display/address", STRING),
    constant("kdump_status", STRING, "disabled"),
    kept("os/custom_kernel_cmdline", STRING, ""),
    constant("os/type", STRING, "RHEL"),
    kept("override_iptables", BOOLEAN),
    kept("power_management/automatic_pm_enabled", BOOLEAN, default=True),
    kept("power_management/enabled", BOOLEAN, default=False),
    kept("power_management/kdump_detection", BOOLEAN, default=True),
    constant("protocol", STRING, "stomp"),
    kept("spm/priority", integer(-1, 10), 5),
    constant("spm/status", STRING, "none"),
    kept("ssh/authentication_method", enum("password", "publickey")),
    kept("ssh/port", integer(1, 65535)),
    constant("update_available", BOOLEAN, value=False),
    kept("vgpu_placement", STRING),
    links=(
        "affinitylabels", "agents", "cpuunits", "devices", "externalnetworkproviderconfigurations",
        "hooks", "katelloerrata", "networkattachments", "nics", "numanodes", "permissions",
        "statistics", "storageconnectionextensions", "storages", "tags", "unmanagednetworks",
    ),
)  # fmt: skip
