"""What readers take: all tables as of one moment of the database, immutable and complete."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar, cast

from engine_pg.replica.table import Rows, RowsDraft, Table, empty

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class View:
    """All tables of a replica, in an epoch; `at` is what time it was at the database."""

    rows: Mapping[type[Any], Rows[Any]]
    at: datetime
    epoch_id: int

    def of(self, kind: type[R]) -> Rows[R]:
        """Return the table of a kind of row."""
        return cast("Rows[R]", self.rows[kind])


class ViewDraft:
    """The next view, while changes are applied to it."""

    def __init__(self, tables: Iterable[Table[Any]], origin: View | None = None) -> None:
        self._rows: dict[type[Any], Rows[Any]] = {
            table.kind: empty(table) if origin is None else origin.of(table.kind)
            for table in tables
        }
        self._drafts: dict[type[Any], RowsDraft[Any]] = {}

    def of(self, table: Table[R]) -> RowsDraft[R]:
        """Return the table to be changed."""
        draft = self._drafts.get(table.kind)
        if draft is None:
            draft = self._drafts[table.kind] = self._rows[table.kind].draft()
        return cast("RowsDraft[R]", draft)

    def freeze(self, at: datetime, epoch_id: int) -> View:
        """Return the view; the draft is of no further use."""
        frozen = {kind: draft.freeze() for kind, draft in self._drafts.items()}
        return View(self._rows | frozen, at, epoch_id)
