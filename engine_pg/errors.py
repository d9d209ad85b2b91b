"""Every error that the engine raises, grouped by what the caller can do about it.

EngineError
├── Rejected            the request is wrong; asking again will not help
│   ├── Invalid         malformed, incomplete or out of range
│   ├── Unauthorized    nobody we know asks
│   ├── Forbidden       somebody we know may not ask this
│   ├── NotFound        there is no such thing
│   ├── TooLarge        over a stated limit
│   ├── KeyReused       its key was given to another request before
│   └── Conflict        not in this state
│       ├── Locked      somebody else works on it right now (names the holders)
│       └── Outdated    it was changed since the caller looked
├── NotHeld             we no longer hold what we acted under; stop
│   ├── LeaseLost       past `trusted_until`; it may come back
│   ├── MemberEnded     this member was ended; everything it held is gone
│   ├── StaleToken      a newer grant of the key exists
│   └── StaleTerm       a newer leader of the name exists
├── Unavailable         nothing happened; try again later
│   ├── DatabaseAway    no writable PostgreSQL answers
│   ├── HostUnreachable the host does not answer
│   └── HostBusy        the host's queue is full or it recovers
├── Resync              what was read can't be followed any further; take a new copy
└── OutcomeUnknown      it may have happened; look before trying again
"""

from __future__ import annotations

from typing import cast


class EngineError(Exception):
    """Root of all errors that the engine raises on purpose; the text is for people."""


class Rejected(EngineError):
    """The request is wrong; asking again will not help."""


class Invalid(Rejected):
    """Malformed, incomplete or out of range."""


class Unauthorized(Rejected):
    """No valid credentials."""


class Forbidden(Rejected):
    """Valid credentials without the right."""


class NotFound(Rejected):
    """There is no such thing."""


class TooLarge(Rejected):
    """The request is over a stated limit."""


class KeyReused(Rejected):
    """The key of the request was given to another one before."""


class Conflict(Rejected):
    """The thing is not in a state that allows this."""


class Locked(Conflict):
    """Somebody else works on it right now."""


class Outdated(Conflict):
    """The thing was changed since the caller looked."""


class NotHeld(EngineError):
    """We no longer hold what we acted under."""


class LeaseLost(NotHeld):
    """The member is past `trusted_until`; it may resume."""


class MemberEnded(NotHeld):
    """The member was ended; everything it held is gone."""


class StaleToken(NotHeld):
    """A newer grant of the key exists."""


class StaleTerm(NotHeld):
    """A newer leader of the name exists."""


class Unavailable(EngineError):
    """Nothing happened; try again later."""


class DatabaseAway(Unavailable):
    """No writable PostgreSQL answers."""


class HostUnreachable(Unavailable):
    """The host does not answer."""


class HostBusy(Unavailable):
    """The host's queue is full, or it recovers."""


class Resync(EngineError):
    """What was read can't be followed any further: take a new copy."""


class OutcomeUnknown(EngineError):
    """It may have happened; look before trying again."""


def innermost(error: BaseException) -> BaseException:
    """Return the first error inside of a group of groups, or the error itself."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error
