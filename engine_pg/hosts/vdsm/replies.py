"""What VDSM says, as the engine's own types.

Most of its numbers are strings, and which fields are there depends on version and state: what is
missing gets a default where that is harmless, all else that is wrong raises `EngineError`. A list
with one unreadable VM is unreadable as a whole: leaving the VM out would declare it stopped.
"""

from __future__ import annotations

from typing import Final, cast
from uuid import UUID

from engine_pg.errors import EngineError
from engine_pg.hosts.driver import (
    Capabilities,
    HostIdentity,
    HostStats,
    Traits,
    VmReport,
    VmState,
)
from engine_pg.hosts.vdsm.constants import (
    ENGINE_FENCING,
    ENGINE_FENCING_ALL,
    ENGINE_HIGHEST_TOKEN,
)

MAX_TEXT_CHARS: Final = 1000

_MIB: Final = 1024 * 1024
_STATES: Final[dict[str, VmState]] = {
    "waitforlaunch": "wait_for_launch",
    "poweringup": "powering_up",
    "up": "up",
    "paused": "paused",
    "poweringdown": "powering_down",
    "rebootinprogress": "reboot_in_progress",
    "migrationsource": "migrating",
    "migrationdestination": "migrating",
    "savingstate": "saving_state",
    "restoringstate": "restoring_state",
    "down": "down",
    "notresponding": "not_responding",
}

Record = dict[str, object]


def identity(result: object) -> HostIdentity:
    """Read who answered from its capabilities."""
    record = as_record(result)
    fenced = record.get(ENGINE_FENCING) == ENGINE_FENCING_ALL
    return HostIdentity(
        host_uuid=_uuid(record, "uuid"),
        boot_id=_text(record, "boot_uuid"),
        traits=Traits(fencing="all" if fenced else "none", migration=True),
        highest_token=_token(record.get(ENGINE_HIGHEST_TOKEN)),
    )


def _token(value: object) -> int:
    """Read a token: exactly, as no floating-point number could hold it."""
    return int(value) if isinstance(value, str) and value.isdecimal() else 0


def capabilities(result: object) -> Capabilities:
    """Read what the machine is."""
    record = as_record(result)
    return Capabilities(
        identity=identity(record),
        cpu_cores=_integer(record, "cpuCores"),
        cpu_threads=_integer(record, "cpuThreads"),
        cpu_sockets=_integer(record, "cpuSockets"),
        cpu_model=_text(record, "cpuModel"),
        memory_bytes=_integer(record, "memSize") * _MIB,
        version=_text(record, "software_version"),
    )


def stats(result: object) -> HostStats:
    """Read what the machine does now."""
    record = as_record(result)
    busy_percent = 100.0 - _number(record, "cpuIdle", 100.0)
    return HostStats(
        cpu_percent=min(max(busy_percent, 0.0), 100.0),
        memory_free_bytes=_integer(record, "memFree") * _MIB,
        vm_active=_integer(record, "vmActive"),
        vm_count=_integer(record, "vmCount"),
    )


def vm_reports(result: object) -> list[VmReport]:
    """Read a list of VMs."""
    if not isinstance(result, list):
        raise EngineError(f"the host sent {_excerpt(result)} for a list of VMs")
    return [vm_report(as_record(entry)) for entry in cast("list[object]", result)]


def vm_report(record: Record) -> VmReport:
    """Read one VM."""
    status = _text(record, "status").replace(" ", "").lower()
    state = _STATES.get(status, "unknown")
    down = state == "down"
    return VmReport(
        vm_id=_uuid(record, "vmId"),
        state=state,
        status_time=_integer(record, "statusTime"),
        exit_code=_integer(record, "exitCode") if down else None,
        exit_reason=_integer(record, "exitReason") if down else None,
        exit_message=_text(record, "exitMessage") if down else "",
    )


def as_record(value: object) -> Record:
    """Return a JSON object as such."""
    if not isinstance(value, dict):
        raise EngineError(f"the host sent {_excerpt(value)} for an object")
    return cast("Record", value)


def _uuid(record: Record, key: str) -> UUID:
    try:
        return UUID(_text(record, key))
    except ValueError as error:
        raise EngineError(f"the host sent {_excerpt(record.get(key))} for {key}") from error


def _text(record: Record, key: str) -> str:
    value = record.get(key)
    return "" if value is None else str(value)[:MAX_TEXT_CHARS]


def _integer(record: Record, key: str) -> int:
    return int(_number(record, key, 0))


def _number(record: Record, key: str, default: float) -> float:
    value = record.get(key, default)
    try:
        number = float(cast("str", value))
    except (TypeError, ValueError, OverflowError) as error:
        raise EngineError(f"the host sent {_excerpt(value)} for {key}") from error
    if not -(2.0**63) < number < 2.0**63:  # no infinity, no NaN
        raise EngineError(f"the host sent {_excerpt(value)} for {key}")
    return number


def _excerpt(value: object) -> str:
    return repr(value)[:100]
