"""Keys in order, sorted when somebody asks: what changed since is merged into what was sorted then.

Sorting is left to the reader, for most batches change no row's place, and many come between reads.
"""

from __future__ import annotations

from typing import Any, Final

Place = tuple[Any, ...]
"""What rows are ordered by; ends with the row's own key, so that no two are equal."""

_FEW: Final = 64


class Order:
    """An immutable order of keys."""

    __slots__ = ("_added", "_base", "_keys", "_removed")

    def __init__(
        self, base: list[Place], added: frozenset[Place], removed: frozenset[Place]
    ) -> None:
        self._base = base
        self._added = added
        self._removed = removed
        self._keys: list[str] | None = None

    def keys(self) -> list[str]:
        """Return all keys in order."""
        if self._keys is None:
            self._settle()
            self._keys = [place[-1] for place in self._base]
        return self._keys

    def changed(self, added: set[Place], removed: set[Place]) -> Order:
        """Return the successor that has some more places and some no more."""
        if not added and not removed:
            return self
        both = (self._added - removed) | (added - self._removed)
        gone = (self._removed - added) | (removed - self._added)
        order = Order(self._base, frozenset(both), frozenset(gone))
        if len(both) + len(gone) > _FEW + len(self._base) // 8:
            order._settle()  # or each batch would copy what nobody asked for
        return order

    def _settle(self) -> None:
        if not self._added and not self._removed:
            return
        removed = self._removed
        kept = [place for place in self._base if place not in removed] if removed else self._base
        self._base = sorted([*kept, *self._added])  # a sorted run and a few: nearly linear
        self._added = self._removed = frozenset[Place]()


EMPTY: Final = Order([], frozenset[Place](), frozenset[Place]())
