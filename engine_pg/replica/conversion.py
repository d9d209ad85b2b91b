"""From a row as JSON, which is how the feed carries it, to the dataclass that a query would give.

JSON knows no identities, no moments and no difference between 12.0 and 12: the fields' types tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import datetime, timedelta
from functools import cache, lru_cache
from types import NoneType, UnionType
from typing import Any, Final, TypeVar, Union, get_args, get_origin, get_type_hints
from uuid import UUID

from engine_pg.db.tx import Record

R = TypeVar("R")
Conversion = Callable[[Any], Any]


def _interval(text: str) -> timedelta:
    """Return a span of hours, minutes and seconds, as PostgreSQL writes the shorter intervals."""
    hours, minutes, seconds = text.split(":")
    return timedelta(hours=int(hours), minutes=int(minutes), seconds=float(seconds))


_CONVERSIONS: Final[Mapping[type, Conversion]] = {
    UUID: lru_cache(16_384)(UUID),  # many rows refer to the same few
    datetime: datetime.fromisoformat,
    timedelta: _interval,
    float: float,
}


def _of_type(hint: object) -> tuple[Conversion | None, bool]:
    """Return how values of a type are made of JSON (None: they are), and whether null is one."""
    if get_origin(hint) in (Union, UnionType):
        given = get_args(hint)
        kinds = [each for each in given if each is not NoneType]
        conversion = _of_type(kinds[0])[0] if len(kinds) == 1 else None
        return conversion, len(kinds) < len(given)
    return (_CONVERSIONS.get(hint) if isinstance(hint, type) else None), False


@cache
def _plan(kind: type[Any]) -> tuple[tuple[str, ...], tuple[tuple[str, Conversion, bool], ...]]:
    hints = get_type_hints(kind)
    plain: list[str] = []
    converted: list[tuple[str, Conversion, bool]] = []
    for field in fields(kind):
        conversion, nullable = _of_type(hints[field.name])
        if conversion is None:
            plain.append(field.name)
        else:
            converted.append((field.name, conversion, nullable))
    return tuple(plain), tuple(converted)


def converted(kind: type[R], record: Record) -> R:
    """Return a row of a kind from its JSON; columns that the kind doesn't know are left out.

    A column that the JSON doesn't have takes the kind's default: an older schema has fewer.
    """
    plain, others = _plan(kind)
    values = {name: record[name] for name in plain if name in record}
    for name, conversion, nullable in others:
        if name in record:
            value = record[name]
            values[name] = None if value is None and nullable else conversion(value)
    return kind(**values)
