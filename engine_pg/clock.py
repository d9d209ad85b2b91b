"""The one clock that decides anything: it never jumps and goes on while the machine sleeps."""

from __future__ import annotations

import time
from typing import Final, Protocol

_CLOCK_ID: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock(Protocol):
    """Seconds since some fixed point of this machine, never comparable with another machine's."""

    def __call__(self) -> float:
        """Return the seconds now."""
        ...


def boottime() -> float:
    """Return CLOCK_BOOTTIME in seconds (CLOCK_MONOTONIC where there is none)."""
    return time.clock_gettime(_CLOCK_ID)
