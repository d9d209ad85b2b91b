"""The words and numbers of VDSM's wire, said once for every speaker of it."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

REQUESTS: Final = "jms.topic.vdsm_requests"
IRS_REQUESTS: Final = "jms.topic.vdsm_irs_requests"
RESPONSES: Final = "jms.topic.vdsm_responses"  # the default: everybody subscribed gets every reply
EVENTS: Final = "jms.queue.events"

CORRELATION_HEADER: Final = "ovirtCorrelationId"

ENGINE_FENCE: Final = "engineFence"
"""Extra parameter of each verb, a list of {"key", "mode", "token"}; a real VDSM ignores it."""

ENGINE_FENCING: Final = "engineFencing"
"""Capability key of hosts that check tokens; its value is `ENGINE_FENCING_ALL`."""

ENGINE_FENCING_ALL: Final = "all"

ENGINE_HIGHEST_TOKEN: Final = "engineHighestToken"
"""Capability key of such hosts: the highest token of any key that they have accepted."""

STALE: Final = 4901
"""Our own error code, outside VDSM's ranges: the host knows a higher token for one of the keys."""


class ErrorCode(IntEnum):
    """VDSM's error codes, and JSON-RPC's negative ones."""

    NO_SUCH_VM = 1
    VM_EXISTS = 4
    VM_DOWN = 6
    CREATE_FAILED = 9
    NO_PEER = 10
    MISSING_PARAMETER = 11
    MIGRATION = 12
    MEMORY = 14
    UNEXPECTED = 16
    GUEST_AGENT = 19
    UNAVAILABLE = 40
    DESTROY_FAILED = 42
    NOT_IMPLEMENTED = 44
    CANCEL_FAILED = 47
    MIGRATION_IN_PROGRESS = 51
    HOOK_FAILED = 78
    NOT_MIGRATING = 81
    MIGRATION_LIMIT = 82
    INVALID = 91
    RECOVERING = 99
    GENERAL = 100
    MIGRATION_OPERATION = 102
    QUEUE_FULL = 1100
    HOOK_ERROR = 1500
    PARSE = -32700
    INVALID_REQUEST = -32600
    NO_SUCH_METHOD = -32601
    INVALID_PARAMETERS = -32602
    INTERNAL = -32603


class ExitReason(IntEnum):
    """Why a VM is down."""

    SUCCESS = 0
    GENERIC_ERROR = 1
    LOST_QEMU = 2
    START_FAILED = 3
    MIGRATED = 4
    SAVED = 5
    ADMIN_SHUTDOWN = 6
    USER_SHUTDOWN = 7
    MIGRATION_FAILED = 8
    DOMAIN_MISSING = 9
    HOST_SHUTDOWN = 11
    POST_COPY_FAILED = 12
    REBOOT = 13
    PAUSE_TIMEOUT = 14
