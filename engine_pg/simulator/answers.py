"""What goes wrong in a call, as the caller is told: VDSM's code and text."""

from __future__ import annotations

from typing import Final

from engine_pg.errors import EngineError
from engine_pg.hosts.vdsm.constants import ErrorCode, ExitReason

EXIT_MESSAGES: Final = {
    ExitReason.LOST_QEMU: "Lost connection with qemu process",
    ExitReason.MIGRATED: "Migration succeeded",
    ExitReason.ADMIN_SHUTDOWN: "Admin shut down from the engine",
    ExitReason.USER_SHUTDOWN: "User shut down from within the guest",
    ExitReason.HOST_SHUTDOWN: "VM has been terminated on the host",
}


class CallFailed(EngineError):
    """The call is answered with an error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = int(code)


def no_such_vm(vm_id: str) -> CallFailed:
    """Return the error for a VM that the host does not know."""
    return CallFailed(
        ErrorCode.NO_SUCH_VM, f"Virtual machine does not exist: {{'vmId': '{vm_id}'}}"
    )


def internal(problem: object) -> CallFailed:
    """Return the error VDSM gives for everything it did not foresee."""
    return CallFailed(ErrorCode.INTERNAL, f"Internal JSON-RPC error: {problem}")
