"""Virtual machines on the wire; passwords of their initialization are neither kept nor shown."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from engine_pg.api.wire.kinds import (
    BOOLEAN,
    DATE,
    LABEL,
    NAME,
    STRING,
    enum,
    integer,
    many,
    ref,
    struct,
    text,
)
from engine_pg.api.wire.shape import Element, Shape, constant, filled, given, kept, shown
from engine_pg.inventory.rows import Vm

MEMORY: Final = integer(1 << 20, 1 << 50)
CPUS: Final = integer(1, 4096)
_PROPERTY: Final = struct(name=LABEL, value=STRING, regexp=STRING)


def _memory(vm: Vm) -> int:
    return vm.memory_bytes


def _memory_max(vm: Vm) -> int:
    return 4 * vm.memory_bytes


def _started_at(vm: Vm) -> datetime | None:
    return vm.started_at if vm.host_id else None


HARDWARE: Final[tuple[Element, ...]] = (
    kept("bios/boot_menu/enabled", BOOLEAN, default=False),
    kept("bios/type", STRING, "q35_sea_bios"),
    kept("console/enabled", BOOLEAN, default=False),
    kept("cpu/architecture", STRING, "x86_64"),
    kept("cpu/mode", STRING),
    kept("cpu_pinning_policy", STRING, "none"),
    kept("cpu_shares", integer(0), 0),
    kept("custom_compatibility_version/major", integer(0, 99)),
    kept("custom_compatibility_version/minor", integer(0, 99)),
    kept("custom_cpu_model", STRING),
    kept("custom_emulated_machine", STRING),
    kept("custom_properties", many("custom_property", _PROPERTY)),
    kept("delete_protected", BOOLEAN, default=False),
    kept("display/address", STRING),
    kept("display/copy_paste_enabled", BOOLEAN, default=True),
    kept("display/disconnect_action", STRING, "LOCK_SCREEN"),
    kept("display/file_transfer_enabled", BOOLEAN, default=True),
    kept("display/keyboard_layout", STRING),
    kept("display/monitors", integer(1, 16), 1),
    kept("display/single_qxl_pci", BOOLEAN),
    kept("display/smartcard_enabled", BOOLEAN, default=False),
    kept("display/type", STRING, "vnc"),
    kept("high_availability/enabled", BOOLEAN, default=False),
    kept("high_availability/priority", integer(0, 100), 1),
    kept("initialization/custom_script", text(65536)),
    kept("initialization/dns_search", STRING),
    kept("initialization/dns_servers", STRING),
    kept("initialization/host_name", STRING),
    kept("initialization/timezone", STRING),
    kept("initialization/user_name", STRING),
    kept("io/threads", integer(0, 127), 0),
    kept("memory_policy/ballooning", BOOLEAN, default=True),
    kept("memory_policy/guaranteed", integer(0), _memory),
    kept("memory_policy/max", integer(0), _memory_max),
    kept("migration/auto_converge", STRING, "inherit"),
    kept("migration/compressed", STRING, "inherit"),
    kept("migration/encrypted", STRING, "inherit"),
    kept("migration_downtime", integer(-1), -1),
    kept("multi_queues_enabled", BOOLEAN, default=True),
    kept("numa_tune_mode", STRING),
    kept("os/boot/devices", many("device", STRING), ["hd"]),
    kept("os/cmdline", STRING),
    kept("os/initrd", STRING),
    kept("os/kernel", STRING),
    kept("placement_policy/affinity", STRING, "migratable"),
    kept("placement_policy/hosts", many("host", struct(id=STRING, name=LABEL))),
    kept("rng_device/rate/bytes", integer(0)),
    kept("rng_device/rate/period", integer(0)),
    kept("rng_device/source", STRING),
    kept("serial_number/policy", STRING),
    kept("serial_number/value", STRING),
    kept("soundcard_enabled", BOOLEAN, default=False),
    kept("sso/methods", many("method", struct(id=STRING))),
    kept("start_paused", BOOLEAN, default=False),
    kept("stateless", BOOLEAN, default=False),
    kept("storage_error_resume_behaviour", STRING, "auto_resume"),
    kept("time_zone/name", STRING, "Etc/GMT"),
    kept("time_zone/utc_offset", STRING),
    kept("tpm_enabled", BOOLEAN, default=False),
    kept("tunnel_migration", BOOLEAN),
    kept("usb/enabled", BOOLEAN, default=False),
    kept("usb/type", STRING),
    kept("virtio_scsi/enabled", BOOLEAN, default=True),
    kept("virtio_scsi_multi_queues", integer(-1)),
    kept("virtio_scsi_multi_queues_enabled", BOOLEAN, default=False),
)

VM: Final = Shape(
    "vm",
    "vms",
    "vm_id",
    given("name", NAME),
    given("description", STRING),
    given("comment", STRING),
    shown("status", STRING, "status"),
    given("type", enum("desktop", "server", "high_performance"), "vm_type"),
    given("memory", MEMORY, "memory_bytes"),
    given("cpu/topology/sockets", CPUS, "cpu_sockets"),
    given("cpu/topology/cores", CPUS, "cpu_cores"),
    given("cpu/topology/threads", CPUS, "cpu_threads"),
    given("os/type", text(64), "os_type"),
    given("cluster", ref("clusters"), "cluster_id"),
    given("template", ref("templates"), "template_id"),
    shown("original_template", ref("templates"), "template_id"),
    shown("host", ref("hosts"), "host_id"),
    shown("creation_time", DATE, "created_at"),
    shown("start_time", DATE, _started_at),
    shown("stop_time", DATE, "stopped_at"),
    filled("stop_reason", STRING, "stop_reason"),
    constant("next_run_configuration_exists", BOOLEAN, value=False),
    constant("run_once", BOOLEAN, value=False),
    constant("has_illegal_images", BOOLEAN, value=False),
    kept("origin", STRING, "ovirt"),
    kept("use_latest_template_version", BOOLEAN, default=False),
    *HARDWARE,
    links=(
        "affinitylabels", "applications", "cdroms", "diskattachments", "floppies",
        "graphicsconsoles", "hostdevices", "katelloerrata", "mediateddevices", "nics", "numanodes",
        "permissions", "reporteddevices", "sessions", "snapshots", "statistics", "tags",
        "watchdogs",
    ),
)  # fmt: skip
