"""From a tree to the rows of a view: which fields there are, and what follows from them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import attrgetter
from typing import Any, Final, Generic, TypeVar

from engine_pg.api.search.fields import Field, Test, TextField, like
from engine_pg.api.search.grammar import Comparison, Joined, Node, Search, Text, parsed
from engine_pg.errors import Invalid
from engine_pg.replica.view import View

R = TypeVar("R")

_PAGE_SIZE: Final = 100
_LAST_OFFSET: Final = (1 << 31) - 1
_BREATH: Final = 500


@dataclass(frozen=True, slots=True)
class Related:
    """Another table that fields are found in (`vm.name` in a search for hosts)."""

    searchable: Callable[[], Searchable[Any]]
    rows: Callable[[View, Any], Iterable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Searchable(Generic[R]):
    """What a search can name in one table; `texts` are looked through for free text."""

    all: Callable[[View], Iterable[R]]
    """All rows in their usual order."""
    fields: Mapping[str, Field]
    texts: Sequence[str]
    related: Mapping[str, Related] = field(default_factory=dict[str, Related])
    kind: type[R] | None = None

    def test(self, view: View, node: Node, *, exact_case: bool = False) -> Test:
        """Return the test that a tree stands for."""
        if isinstance(node, Joined):
            tests = [self.test(view, part, exact_case=exact_case) for part in node.parts]
            together = all if node.junction == "and" else any
            return lambda row: together(test(row) for test in tests)
        if isinstance(node, Text):
            return self._anywhere(node.value, exact_case=exact_case)
        return self._comparison(view, node, exact_case=exact_case)

    def ordered(self, view: View, search: Search, rows: Iterable[R]) -> Iterable[R]:
        """Return rows, which come in the usual order, as a search wants them."""
        if search.sort_field is None:
            return rows
        found = self.fields.get(search.sort_field)
        if found is None or found.sort_key is None:
            raise Invalid(f"The search cannot sort by {search.sort_field[:40]}")
        key = found.sort_key
        keyed = [(key(view, row), row) for row in rows]
        known = [pair for pair in keyed if pair[0] is not None]
        known.sort(key=lambda pair: pair[0], reverse=search.descending)
        return [pair[1] for pair in known] + [row for value, row in keyed if value is None]

    def candidates(self, view: View, node: Node) -> Iterable[R]:
        """Return rows among which all are that a tree finds, in the usual order."""
        parts = node.parts if isinstance(node, Joined) and node.junction == "and" else (node,)
        for part in parts:
            if not isinstance(part, Comparison) or part.operator != "=" or "*" in part.value:
                continue
            found = self.fields.get(part.field)
            if isinstance(found, TextField) and found.index and self.kind:
                return view.of(self.kind).by(found.index, part.value.lower())
        return self.all(view)

    def _comparison(self, view: View, node: Comparison, *, exact_case: bool) -> Test:
        found = self.fields.get(node.field)
        if found is not None:
            return found.test(view, node.operator, node.value, exact_case=exact_case)
        owner, _, name = node.field.partition(".")
        related = self.related.get(owner)
        if related is not None:
            other = related.searchable()  # its fields alone: a path never leads further, or back
            if (found := other.fields.get(name or "name")) is not None:
                inner = found.test(view, node.operator, node.value, exact_case=exact_case)
                return lambda row: any(map(inner, related.rows(view, row)))
        return self._anywhere(f"{node.field}{node.operator}{node.value}", exact_case=exact_case)

    def _anywhere(self, value: str, *, exact_case: bool) -> Test:
        matches = like(value, exact_case=exact_case, anywhere=True)
        getters = [attrgetter(name) for name in self.texts]
        return lambda row: any(matches(get(row)) for get in getters)


@dataclass(frozen=True, slots=True)
class Listing(Generic[R]):
    """A search as it is read: at most `limit` rows, the first `offset` left out."""

    searchable: Searchable[R]
    search: Search
    exact_case: bool
    limit: int
    offset: int

    async def of(self, view: View, rows: Iterable[R] | None = None) -> list[R]:
        """Return what the search finds in a view, or among the given rows.

        The loop is let go after every few rows: a long table must not stop this node's heart.
        """
        where, searchable = self.search.where, self.searchable
        if where is not None:
            test = searchable.test(view, where, exact_case=self.exact_case)
            source = searchable.candidates(view, where) if rows is None else rows
            rows = await _filtered(source, test)
        elif rows is None:
            rows = searchable.all(view)
        ordered = searchable.ordered(view, self.search, rows)
        return list(islice(ordered, self.offset, self.offset + self.limit))


async def _filtered(rows: Iterable[R], test: Test) -> list[R]:
    found: list[R] = []
    for number, row in enumerate(rows, 1):
        if test(row):
            found.append(row)
        if number % _BREATH == 0:
            await asyncio.sleep(0)
    return found


def listing(
    searchable: Searchable[R], text: str, *, exact_case: bool, limit: int | None, bound: int
) -> Listing[R]:
    """Return what a search asks for: at most `limit` rows, never more than `bound`."""
    search = parsed(text)
    size = min(limit if limit is not None else bound, bound)
    page_size = size if limit is not None else min(_PAGE_SIZE, bound)
    paged = page_size if search.page > 1 else size
    offset = min((search.page - 1) * page_size, _LAST_OFFSET)
    return Listing(searchable, search, exact_case, paged, offset)
