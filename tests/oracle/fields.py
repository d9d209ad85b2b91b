"""What a field can be compared with, and how: one small class per kind of field."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, Text, cast, false, func, literal, not_
from sqlalchemy.sql import operators

from engine_pg.errors import Invalid

Element = ColumnElement[Any]
Condition = ColumnElement[bool]

ORDERED: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "=": operators.eq,
    "<": operators.lt,
    "<=": operators.le,
    ">": operators.gt,
    ">=": operators.ge,
}


def like(expression: Element, value: str, *, exact_case: bool, anywhere: bool = False) -> Condition:
    """Return whether a text matches a value, in which only `*` stands for something else."""
    if not exact_case:
        expression, value = func.lower(expression), value.lower()
    if "*" not in value and not anywhere:
        return expression == literal(value, Text)
    pattern = re.sub(r"([\\%_])", r"\\\1", value).replace("*", "%")
    return expression.like(literal(f"%{pattern}%" if anywhere else pattern, Text), escape="\\")


def negated(condition: Condition) -> Condition:
    """Return the opposite of a condition; what is unknown did not match."""
    return not_(func.coalesce(condition, false()))


class Field(Protocol):
    """Something that a search can name."""

    @property
    def sort_key(self) -> Element | None:
        """What SORTBY orders by, if it can."""
        ...

    def condition(self, operator: str, value: str, *, exact_case: bool) -> Condition:
        """Return the condition `field operator value`, or raise Invalid."""
        ...


def _only_equality(operator: str) -> None:
    if operator not in ("=", "!="):
        raise Invalid(f"The operator {operator} does not go with this field of the search")


@dataclass(frozen=True, slots=True)
class TextField:
    """A text, compared with or without regard to case."""

    expression: Element

    @property
    def sort_key(self) -> Element:
        """Order without regard to case."""
        return func.lower(self.expression)

    def condition(self, operator: str, value: str, *, exact_case: bool) -> Condition:
        """Compare by equality or pattern."""
        _only_equality(operator)
        condition = like(self.expression, value, exact_case=exact_case)
        return condition if operator == "=" else negated(condition)


@dataclass(frozen=True, slots=True)
class WordField:
    """A state: `powering_up`, `PoweringUp` and `poweringup` are the same."""

    expression: Element

    @property
    def sort_key(self) -> Element:
        """Order by the word."""
        return self.expression

    def condition(self, operator: str, value: str, *, exact_case: bool) -> Condition:  # noqa: ARG002  # words have none
        """Compare by equality or pattern."""
        _only_equality(operator)
        plain = func.replace(self.expression, "_", "")
        condition = like(plain, value.replace("_", ""), exact_case=False)
        return condition if operator == "=" else negated(condition)


@dataclass(frozen=True, slots=True)
class NumberField:
    """A number; `unit` is what one of the client's is in ours."""

    expression: Element
    unit: int = 1

    @property
    def sort_key(self) -> Element:
        """Order by the number."""
        return self.expression

    def condition(self, operator: str, value: str, *, exact_case: bool) -> Condition:  # noqa: ARG002  # numbers have none
        """Compare in any way."""
        if value == "*":
            condition = self.expression.is_not(None)
            return condition if operator == "=" else negated(condition)
        if not re.fullmatch(r"[+-]?[0-9]{1,12}", value, re.ASCII):
            raise Invalid(f"{value[:40]!r} is not a number that the search can compare with")
        number = literal(int(value) * self.unit, BigInteger)
        if operator == "!=":
            return negated(self.expression == number)
        return ORDERED[operator](self.expression, number)


@dataclass(frozen=True, slots=True)
class IdField:
    """An identity."""

    expression: Element

    @property
    def sort_key(self) -> Element:
        """Order by the identity."""
        return self.expression

    def condition(self, operator: str, value: str, *, exact_case: bool) -> Condition:  # noqa: ARG002  # ids have none
        """Compare by equality (by the key) or pattern."""
        _only_equality(operator)
        try:
            condition = self.expression == literal(UUID(value))
        except ValueError:
            condition = like(cast(self.expression, Text), value, exact_case=False)
        return condition if operator == "=" else negated(condition)


@dataclass(frozen=True, slots=True)
class UnknownField:
    """A field that clients use and of which the engine knows no values."""

    sort_key: Element | None = None

    def condition(self, operator: str, value: str, *, exact_case: bool) -> Condition:  # noqa: ARG002  # nothing matches
        """Match nothing."""
        return negated(false()) if operator == "!=" else false()
