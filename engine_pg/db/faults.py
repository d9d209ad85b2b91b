"""What a PostgreSQL error means for the caller: which branch of the error tree it is."""

from __future__ import annotations

from typing import Final

import psycopg

from engine_pg.errors import (
    Conflict,
    DatabaseAway,
    EngineError,
    Invalid,
    MemberEnded,
    StaleTerm,
    StaleToken,
    Unavailable,
)


class SessionSuperseded(EngineError):
    """Another lock session of the same member took over; this one does nothing any more."""


class Duplicate(Conflict):
    """A row with the same key exists; `constraint` names the unique index."""

    def __init__(self, text: str, constraint: str) -> None:
        super().__init__(text)
        self.constraint = constraint


class DatabaseFault(EngineError):
    """PostgreSQL refused a statement for a reason that is a defect of ours."""


_OWN: Final[dict[str, type[EngineError]]] = {
    "EP001": DatabaseAway,
    "EP002": MemberEnded,
    "EP003": SessionSuperseded,
    "EP004": StaleToken,
    "EP005": StaleTerm,
}
_BY_STATE: Final[dict[str, type[EngineError]]] = {
    "25006": DatabaseAway,  # read-only: a primary that was demoted under us
    "53300": DatabaseAway,  # too many connections
    "55P03": Unavailable,  # lock timeout
    "40P01": Unavailable,  # deadlock
    "40001": Unavailable,  # serialization failure
    "23503": Conflict,
    "23514": Invalid,
    "22P05": Invalid,  # a character that the encoding doesn't have
}
_BY_CLASS: Final[dict[str, type[EngineError]]] = {
    "08": DatabaseAway,
    "57": DatabaseAway,  # shut down, crashed, starting, terminated by an administrator
    "53": Unavailable,  # out of memory, disk or locks
}


def translated(error: psycopg.Error) -> EngineError:
    """Return the engine's error for a psycopg error; one without a state lost its connection."""
    text = error.diag.message_primary or str(error).strip() or type(error).__name__
    state = error.sqlstate
    if state is None:
        lost = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        return DatabaseAway(text) if lost else DatabaseFault(text)
    if isinstance(error, psycopg.errors.UniqueViolation):
        return Duplicate(text, error.diag.constraint_name or "")
    if error.diag.severity_nonlocalized in ("FATAL", "PANIC"):  # the session is over, whatever why
        return DatabaseAway(text)
    kind = _OWN.get(state) or _BY_STATE.get(state) or _BY_CLASS.get(state[:2]) or DatabaseFault
    return kind(text)
