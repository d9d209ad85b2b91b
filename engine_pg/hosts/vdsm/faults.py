"""VDSM's error codes as the engine's errors, which say what the caller may do about it."""

from __future__ import annotations

from typing import Final

from engine_pg.errors import Conflict, EngineError, HostBusy, NotFound, StaleToken
from engine_pg.hosts.vdsm.constants import STALE, ErrorCode

MAX_MESSAGE_CHARS: Final = 1000

_KINDS: Final[dict[object, type[EngineError]]] = {
    STALE: StaleToken,
    ErrorCode.NO_SUCH_VM: NotFound,
    ErrorCode.VM_EXISTS: Conflict,
    ErrorCode.VM_DOWN: Conflict,
    ErrorCode.CANCEL_FAILED: Conflict,
    ErrorCode.NO_PEER: Conflict,
    ErrorCode.MIGRATION_OPERATION: Conflict,
    ErrorCode.MIGRATION_IN_PROGRESS: Conflict,
    ErrorCode.NOT_MIGRATING: Conflict,
    ErrorCode.HOOK_FAILED: Conflict,
    ErrorCode.HOOK_ERROR: Conflict,
    ErrorCode.RECOVERING: HostBusy,
    ErrorCode.QUEUE_FULL: HostBusy,
}


def fault(method: str, code: object, message: object) -> EngineError:
    """Return the error to raise for a call that the host refused."""
    kind = _KINDS.get(code, EngineError) if isinstance(code, int) else EngineError
    return kind(f"{method}: {str(message)[:MAX_MESSAGE_CHARS]} (code {str(code)[:20]})")
