"""Faults that are put into a host while it runs: calls that never return, or return late.

`when` says on which side of the call's effect: `before` is a call that gets stuck on its way in, so
that it acts late or never; `after` is an answer that gets stuck on its way out, so that the call
acted and nobody is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

When = Literal["before", "after"]


@dataclass(frozen=True, slots=True)
class Hold:
    """Calls of these verbs (all when None) are held for some seconds, or for ever."""

    when: When
    verbs: frozenset[str] | None
    seconds: float | None

    def concerns(self, method: str, when: When) -> bool:
        """Return whether a call is held here."""
        return self.when == when and (self.verbs is None or method in self.verbs)


class Holds:
    """The holds in force on one host; the latest that concerns a call wins."""

    def __init__(self) -> None:
        self._holds: list[Hold] = []

    def add(self, hold: Hold) -> None:
        """Put a hold in force."""
        self._holds.insert(0, hold)

    def remove(self, hold: Hold) -> None:
        """Take one hold away, if it is still there."""
        if hold in self._holds:
            self._holds.remove(hold)

    def clear(self) -> None:
        """Take all holds away; calls already held stay held."""
        self._holds.clear()

    def find(self, method: str, when: When) -> Hold | None:
        """Return the hold for a call."""
        return next((hold for hold in self._holds if hold.concerns(method, when)), None)
