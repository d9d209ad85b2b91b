"""One table of a replica: its rows by key, in order and by what they are looked up with.

A table joins the replica by a `Table` in the list that the node is made of, and a trigger of the
change feed in a migration. Rows are immutable, and so is a version of a table.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, LiteralString, TypeVar

from engine_pg.db.tx import Record
from engine_pg.replica import order
from engine_pg.replica.conversion import converted
from engine_pg.replica.maps import Draft, Frozen
from engine_pg.replica.order import Order, Place

R = TypeVar("R")
Keys = dict[str, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table(Generic[R]):
    """What the replica is to know of a table.

    `copy` selects `row`, each row as JSON; `key` is what the feed calls a row; `place` is what rows
    are ordered by; `indexes` what they are looked up with. With `most`, only the first so many in
    order are kept.
    """

    kind: type[R]
    topic: str
    copy: LiteralString
    key: Callable[[Record], str]
    place: Callable[[R], tuple[Any, ...]]
    indexes: Mapping[str, Callable[[R], Hashable]] = field(
        default_factory=dict[str, Callable[[R], Hashable]]
    )
    most: int | None = None

    def row(self, record: Record) -> R:
        """Return a row from its JSON."""
        return converted(self.kind, record)


@dataclass(frozen=True, slots=True)
class Parts(Generic[R]):
    """What a version of a table is made of."""

    rows: Frozen[str, R]
    groups: Mapping[str, Frozen[Hashable, Keys]]
    order: Order


class Rows(Generic[R]):
    """One version of a table; immutable."""

    __slots__ = ("_groups", "_order", "_parts", "_rows", "table")

    def __init__(self, table: Table[R], parts: Parts[R]) -> None:
        self.table = table
        self._parts = parts
        self._rows, self._groups, self._order = parts.rows, parts.groups, parts.order

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[R]:
        """Yield all rows in order."""
        rows = self._rows
        return (rows[key] for key in self._order.keys())  # noqa: SIM118  # no mapping

    def get(self, key: object) -> R | None:
        """Return the row with a key, if there is one."""
        return self._rows.get(str(key))

    def by(self, index: str, value: Hashable) -> list[R]:
        """Return the rows that have a value in an index; null is never found."""
        keys = None if value is None else self._groups[index].get(value)
        return [] if keys is None else [self._rows[key] for key in keys]

    def count(self, index: str, value: Hashable) -> int:
        """Return how many rows have a value in an index."""
        return len(self._groups[index].get(value) or ())

    def counts(self, index: str) -> Mapping[Hashable, int]:
        """Return how many rows have each value of an index that is not null."""
        return {value: len(keys) for value, keys in self._groups[index].items()}

    def draft(self) -> RowsDraft[R]:
        """Return a copy that can be changed, and in the end frozen."""
        return RowsDraft(self.table, self._parts)


class RowsDraft(Generic[R]):
    """The next version of a table, while a batch is applied."""

    def __init__(self, table: Table[R], origin: Parts[R]) -> None:
        self._table = table
        self._rows = origin.rows.draft()
        self._groups = origin.groups
        self._drafts: dict[str, Draft[Hashable, Keys]] = {}
        self._own: set[tuple[str, Hashable]] = set()
        self._order = origin.order
        self._added: set[Place] = set()
        self._removed: set[Place] = set()

    def put(self, key: str, row: R) -> None:
        """Set a row, new or changed."""
        old = self._rows.get(key)
        self._rows.put(key, row)
        place = self._table.place
        before, after = None if old is None else place(old), place(row)
        if before != after:
            if before is not None:
                self._leave((*before, key))
            self._enter((*after, key))
        for name, value_of in self._table.indexes.items():
            value, former = value_of(row), None if old is None else value_of(old)
            if value != former:
                self._ungroup(name, former, key)
                self._group(name, value, key)

    def drop(self, key: str) -> None:
        """Remove a row, if it is there."""
        old = self._rows.get(key)
        if old is None:
            return
        self._rows.drop(key)
        self._leave((*self._table.place(old), key))
        for name, value_of in self._table.indexes.items():
            self._ungroup(name, value_of(old), key)

    def freeze(self) -> Rows[R]:
        """Return the new version; the draft is of no further use."""
        order_ = self._order.changed(self._added, self._removed)
        groups = dict(self._groups) | {n: draft.freeze() for n, draft in self._drafts.items()}
        rows = self._rows.freeze()
        made = Rows(self._table, Parts(rows, groups, order_))
        most = self._table.most
        if most is None or len(rows) <= most + most // 10:
            return made
        shorter = made.draft()
        for key in order_.keys()[most:]:
            shorter.drop(key)
        return shorter.freeze()

    def _enter(self, place: Place) -> None:
        if place in self._removed:
            self._removed.discard(place)
        else:
            self._added.add(place)

    def _leave(self, place: Place) -> None:
        if place in self._added:
            self._added.discard(place)
        else:
            self._removed.add(place)

    def _keys(self, name: str, value: Hashable) -> Keys:
        """Return the keys under a value, which may be changed: they are this draft's own."""
        draft = self._drafts.get(name)
        if draft is None:
            draft = self._drafts[name] = self._groups[name].draft()
        keys = draft.get(value)
        if keys is None or (name, value) not in self._own:
            self._own.add((name, value))
            keys = {} if keys is None else keys.copy()
            draft.put(value, keys)
        return keys

    def _group(self, name: str, value: Hashable, key: str) -> None:
        if value is not None:
            self._keys(name, value)[key] = None

    def _ungroup(self, name: str, value: Hashable, key: str) -> None:
        if value is None:
            return
        keys = self._keys(name, value)
        keys.pop(key, None)
        if not keys:
            self._drafts[name].drop(value)


def empty(table: Table[R]) -> Rows[R]:
    """Return the first version of a table."""
    groups: dict[str, Frozen[Hashable, Keys]] = {name: Frozen() for name in table.indexes}
    return Rows(table, Parts(Frozen(), groups, order.EMPTY))
