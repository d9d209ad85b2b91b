"""One VM of a simulated host, as VDSM would report it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from zlib import crc32

from engine_pg.hosts.vdsm.constants import ExitReason
from engine_pg.simulator.answers import EXIT_MESSAGES
from engine_pg.simulator.domain import Domain

Status = Literal[
    "WaitForLaunch", "PoweringUp", "Up", "Paused", "PoweringDown", "RebootInProgress", "Down",
    "Migration Source", "Migration Destination",
]  # fmt: skip
OUTGOING: Final = "Migration Source"
INCOMING: Final = "Migration Destination"


@dataclass(frozen=True, slots=True)
class Exit:
    """How a VM ended."""

    code: int
    reason: int
    message: str

    @classmethod
    def of(cls, reason: ExitReason, *, failed: bool = False) -> Exit:
        """Return the end that VDSM reports for a reason."""
        return cls(int(failed), int(reason), EXIT_MESSAGES[reason])


@dataclass(slots=True)
class Vm:
    """A VM that the host knows; one with an `exit` is a tombstone that waits to be destroyed."""

    domain: Domain
    xml: str
    status: Status = "WaitForLaunch"
    status_time: int = 0
    paused: bool = False  # launched with its processors stopped
    exit: Exit | None = None
    timer: asyncio.TimerHandle | None = field(default=None, repr=False)

    @property
    def vm_id(self) -> str:
        """Return the identity from the XML."""
        return self.domain.vm_id

    @property
    def running(self) -> bool:
        """Return whether the VM takes anything from the host."""
        return self.exit is None

    def cancel_timer(self) -> None:
        """Forget what the VM was about to do."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def brief(self) -> dict[str, Any]:
        """Return the short form that every list gives."""
        return {"vmId": self.vm_id, "status": self.status, "statusTime": str(self.status_time)}

    def stats(self) -> dict[str, Any]:
        """Return the long form, or the one of a VM that is down."""
        if self.exit is not None:
            return self.brief() | {
                "exitCode": self.exit.code,
                "exitMessage": self.exit.message,
                "exitReason": self.exit.reason,
                "timeOffset": "0",
            }
        return self.brief() | {
            "vmName": self.domain.name,
            "pauseCode": "NOERR",
            "hash": str(crc32(self.xml.encode())),
            "acpiEnable": "true",
            "clientIp": "",
            "cpuSys": "0.10",
            "cpuUser": "0.40",
            "memUsage": "0",
            "displayInfo": [],
            "disks": {},
            "network": {},
            "elapsedTime": "0",
            "guestCPUCount": self.domain.cpus,
            "kvmEnable": "true",
            "monitorResponse": "0",
            "vcpuCount": str(self.domain.cpus),
            "vmType": "kvm",
        }
