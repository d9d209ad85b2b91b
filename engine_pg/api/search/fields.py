"""What a field can be compared with, and how: one small class per kind of field.

A field gives, for one view, a test of rows. What is null matches nothing, and its negation all.
"""

from __future__ import annotations

import operator as operators
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol
from uuid import UUID

from engine_pg.errors import Invalid
from engine_pg.replica.view import View

Test = Callable[[Any], bool]
Value = Callable[[View, Any], Any]
"""What a row says, in a view, or None."""

ORDERED: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "=": operators.eq,
    "<": operators.lt,
    "<=": operators.le,
    ">": operators.gt,
    ">=": operators.ge,
}


def like(value: str, *, exact_case: bool, anywhere: bool = False) -> Callable[[str | None], bool]:
    """Return the test whether a text matches a value; only `*` stands for something else."""
    value = value if exact_case else value.lower()
    first, *inner = value.split("*")
    last = inner.pop() if inner else None

    def matches(text: str | None) -> bool:
        if text is None:
            return False
        text = text if exact_case else text.lower()
        if anywhere:
            return _in_order(text, 0, len(text), [first, *inner, last or ""])
        if last is None:
            return text == first
        end = len(text) - len(last)
        return (
            text.startswith(first)
            and text.endswith(last)
            and _in_order(text, len(first), end, inner)
        )

    return matches


def _in_order(text: str, begin: int, end: int, pieces: list[str]) -> bool:
    """Return whether pieces follow each other; the first place that fits is as good as any."""
    if begin > end:
        return False
    for piece in pieces:
        found = text.find(piece, begin, end)
        if found < 0:
            return False
        begin = found + len(piece)
    return True


def either(matches: Test, operator: str) -> Test:
    """Return a test for `=`, or its opposite for `!=`."""
    return matches if operator == "=" else lambda row: not matches(row)


class Field(Protocol):
    """Something that a search can name."""

    @property
    def sort_key(self) -> Value | None:
        """What SORTBY orders by, if it can."""
        ...

    def test(self, view: View, operator: str, value: str, *, exact_case: bool) -> Test:
        """Return the test `field operator value`, or raise Invalid."""
        ...


def _only_equality(operator: str) -> None:
    if operator not in ("=", "!="):
        raise Invalid(f"The operator {operator} does not go with this field of the search")


def column(name: str) -> Value:
    """Return the value of a column."""
    get = operators.attrgetter(name)
    return lambda view, row: get(row)  # noqa: ARG005  # the same in each view


@dataclass(frozen=True, slots=True)
class TextField:
    """A text, compared with or without regard to case."""

    value: Value
    index: str | None = None
    """The index of its table that finds it in lower case."""

    @property
    def sort_key(self) -> Value:
        """Order without regard to case."""

        def lowered(view: View, row: object) -> str | None:
            text = self.value(view, row)
            return None if text is None else text.lower()

        return lowered

    def test(self, view: View, operator: str, value: str, *, exact_case: bool) -> Test:
        """Compare by equality or pattern."""
        _only_equality(operator)
        matches, of = like(value, exact_case=exact_case), self.value
        return either(lambda row: matches(of(view, row)), operator)


@dataclass(frozen=True, slots=True)
class WordField:
    """A state: `powering_up`, `PoweringUp` and `poweringup` are the same."""

    value: Value

    @property
    def sort_key(self) -> Value:
        """Order by the word."""
        return self.value

    def test(self, view: View, operator: str, value: str, *, exact_case: bool) -> Test:  # noqa: ARG002  # words have none
        """Compare by equality or pattern."""
        _only_equality(operator)
        matches, of = like(value.replace("_", ""), exact_case=False), self.value
        return either(lambda row: matches(of(view, row).replace("_", "")), operator)


@dataclass(frozen=True, slots=True)
class NumberField:
    """A number; `unit` is what one of the client's is in ours."""

    value: Value
    unit: int = 1

    @property
    def sort_key(self) -> Value:
        """Order by the number."""
        return self.value

    def test(self, view: View, operator: str, value: str, *, exact_case: bool) -> Test:  # noqa: ARG002  # numbers have none
        """Compare in any way."""
        if value == "*":
            return lambda row: operator == "="  # noqa: ARG005  # each row has a number
        if not re.fullmatch(r"[+-]?[0-9]{1,12}", value, re.ASCII):
            raise Invalid(f"{value[:40]!r} is not a number that the search can compare with")
        number, of = int(value) * self.unit, self.value
        compare = operators.ne if operator == "!=" else ORDERED[operator]
        return lambda row: compare(of(view, row), number)


@dataclass(frozen=True, slots=True)
class IdField:
    """An identity."""

    value: Value

    @property
    def sort_key(self) -> Value:
        """Order by the identity."""
        return self.value

    def test(self, view: View, operator: str, value: str, *, exact_case: bool) -> Test:  # noqa: ARG002  # ids have none
        """Compare by equality or pattern."""
        _only_equality(operator)
        of = self.value
        try:
            id_ = UUID(value)
        except ValueError:
            matches = like(value, exact_case=False)
            return either(lambda row: matches(str(of(view, row))), operator)
        return either(lambda row: of(view, row) == id_, operator)


@dataclass(frozen=True, slots=True)
class UnknownField:
    """A field that clients use and of which the engine knows no values."""

    sort_key: Value | None = None

    def test(self, view: View, operator: str, value: str, *, exact_case: bool) -> Test:  # noqa: ARG002  # nothing matches
        """Match nothing."""
        return lambda row: operator == "!="  # noqa: ARG005  # nor does any row
