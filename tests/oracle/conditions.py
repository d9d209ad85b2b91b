"""From a tree to a condition on a table: which fields there are, and what follows from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import ColumnElement, FromClause, and_, exists, or_, select

from engine_pg.api.search.grammar import Comparison, Joined, Node, Search, Text, parsed
from engine_pg.errors import Invalid
from oracle.fields import Condition, Element, Field, like

_PAGE_SIZE: Final = 100
_LAST_OFFSET: Final = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class Related:
    """Another table that fields are found in (`vm.name` in a search for hosts)."""

    searchable: Callable[[], Searchable]
    join: Callable[[], Condition]


@dataclass(frozen=True, slots=True, kw_only=True)
class Searchable:
    """What a search can name in one table; `texts` are looked through for free text."""

    table: FromClause
    fields: Mapping[str, Field]
    texts: Sequence[Element]
    order: Sequence[ColumnElement[Any]]
    related: Mapping[str, Related] = field(default_factory=dict[str, Related])

    def condition(self, node: Node, *, exact_case: bool = False) -> Condition:
        """Return the condition that a tree stands for."""
        if isinstance(node, Joined):
            parts = [self.condition(part, exact_case=exact_case) for part in node.parts]
            return and_(*parts) if node.junction == "and" else or_(*parts)
        if isinstance(node, Text):
            return self._anywhere(node.value, exact_case=exact_case)
        return self._comparison(node, exact_case=exact_case)

    def ordering(self, search: Search) -> Sequence[ColumnElement[Any]]:
        """Return what a search orders by."""
        if search.sort_field is None:
            return self.order
        found = self.fields.get(search.sort_field)
        if found is None or found.sort_key is None:
            raise Invalid(f"The search cannot sort by {search.sort_field[:40]}")
        key = found.sort_key
        first = key.desc() if search.descending else key.asc()
        return [first.nulls_last(), *self.order]

    def _comparison(self, node: Comparison, *, exact_case: bool) -> Condition:
        found = self.fields.get(node.field)
        if found is not None:
            return found.condition(node.operator, node.value, exact_case=exact_case)
        owner, _, name = node.field.partition(".")
        related = self.related.get(owner)
        if related is not None:
            other = related.searchable()  # its fields alone: a path never leads further, or back
            if (found := other.fields.get(name or "name")) is not None:
                inner = found.condition(node.operator, node.value, exact_case=exact_case)
                return exists(select(1).select_from(other.table).where(related.join(), inner))
        return self._anywhere(f"{node.field}{node.operator}{node.value}", exact_case=exact_case)

    def _anywhere(self, value: str, *, exact_case: bool) -> Condition:
        return or_(*(like(t, value, exact_case=exact_case, anywhere=True) for t in self.texts))


@dataclass(frozen=True, slots=True)
class Listing:
    """A search as a query needs it."""

    where: Condition | None
    order: Sequence[ColumnElement[Any]]
    limit: int
    offset: int


def listing(
    searchable: Searchable, text: str, *, exact_case: bool, limit: int | None, bound: int
) -> Listing:
    """Return what a search asks for: at most `limit` rows, never more than `bound`."""
    search = parsed(text)
    where = searchable.condition(search.where, exact_case=exact_case) if search.where else None
    size = min(limit if limit is not None else bound, bound)
    page_size = size if limit is not None else min(_PAGE_SIZE, bound)
    paged = page_size if search.page > 1 else size
    offset = min((search.page - 1) * page_size, _LAST_OFFSET)
    return Listing(where, searchable.ordering(search), paged, offset)
