"""What an element can hold: how its value is read from the wire, checked, and written.

`parse` takes what XML gives (text) and what JSON gives (typed or text). It raises ValueError with a
phrase that completes "element … ".
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, cast
from uuid import UUID

from engine_pg.api.wire.document import ILLEGAL, Document, is_document, reference, repeated

_TEXT_LIMIT: Final = 4096
_NAME_LIMIT: Final = 255
_INT64: Final = 1 << 63


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of value: `parse` for input, `write` (value, base of hrefs) for output."""

    name: str
    parse: Callable[[Any], Any]
    write: Callable[[Any, str], Any] = lambda value, base: value  # noqa: ARG005  # most need no base


@dataclass(frozen=True, slots=True)
class Reference:
    """Another entity as a client names it: by id or by name."""

    id: UUID | None
    name: str | None


def _text(limit: int) -> Callable[[object], str]:
    def parse(raw: object) -> str:
        if not isinstance(raw, str | int | float) or isinstance(raw, bool):
            raise ValueError("is not a text")
        text = str(raw)
        if len(text) > limit:
            raise ValueError(f"is longer than {limit} characters")
        if ILLEGAL.search(text):
            raise ValueError("has characters that XML cannot carry")
        return text

    return parse


def text(limit: int) -> Kind:
    """Return the kind of a text of at most `limit` characters."""
    return Kind("string", _text(limit))


def _name(raw: object) -> str:
    name = _text(_NAME_LIMIT)(raw)
    if not re.fullmatch(r"[\w.-]*", name):
        raise ValueError("has characters other than letters, digits, '-', '_' and '.'")
    return name


def integer(low: int = -_INT64, high: int = _INT64 - 1) -> Kind:
    """Return the kind of a whole number within a range."""

    def parse(raw: object) -> int:
        if isinstance(raw, bool) or not isinstance(raw, str | int) or len(str(raw)) > 20:
            raise ValueError("is not a whole number")
        if isinstance(raw, str) and not raw.strip().lstrip("+-").isascii():
            raise ValueError("is not a whole number")
        try:
            value = int(raw)
        except ValueError:
            raise ValueError("is not a whole number") from None
        if not low <= value <= high:
            raise ValueError(f"is not between {low} and {high}")
        return value

    return Kind("integer", parse)


def _decimal(raw: object) -> float:
    try:
        value = float(cast("str", raw))
    except (TypeError, ValueError):
        raise ValueError("is not a number") from None
    if not math.isfinite(value):
        raise ValueError("is not a number")
    return value


_BOOLEANS: Final = {"true": True, "1": True, "false": False, "0": False}


def _boolean(raw: object) -> bool:
    value = _BOOLEANS.get(str(raw).strip().lower())
    if value is None:
        raise ValueError("is neither true nor false")
    return value


def _date(raw: object) -> datetime:
    try:
        if isinstance(raw, int):
            return datetime.fromtimestamp(raw / 1000, UTC)
        value = datetime.fromisoformat(str(raw))
    except (ValueError, OverflowError, OSError):
        raise ValueError("is not a date") from None
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def enum(*values: str) -> Kind:
    """Return the kind of one out of a few words."""

    def parse(raw: object) -> str:
        word = str(raw).lower()
        if word not in values:
            raise ValueError(f"is not one of {', '.join(values)}")
        return word

    return Kind("enum", parse)


def _reference_in(raw: object) -> Reference:
    if not is_document(raw):
        raise ValueError("names neither an id nor a name")
    document = cast("Document", raw)
    id_, name = document.get("id"), document.get("name")
    if id_ is not None:
        return Reference(uuid(id_), None)
    if not isinstance(name, str) or not name:
        raise ValueError("names neither an id nor a name")
    return Reference(None, LABEL.parse(name))


def uuid(raw: object) -> UUID:
    """Return a canonical identity, or raise ValueError."""
    try:
        value = UUID(str(raw))
    except ValueError:
        raise ValueError("has an id that is not a UUID") from None
    if str(value) != str(raw).lower():
        raise ValueError("has an id that is not a UUID")
    return value


def ref(collection: str) -> Kind:
    """Return the kind of a reference to an entity of a collection."""
    return Kind("reference", _reference_in, lambda id_, base: reference(base, collection, id_))


def many(item: str, kind: Kind) -> Kind:
    """Return the kind of a list, each value wrapped in an element `item`."""

    def parse(raw: object) -> list[Any]:
        if not is_document(raw):
            if raw in ("", None):
                return []
            raise ValueError(f"is not a list of {item}")
        document = cast("Document", raw)
        return [kind.parse(each) for each in repeated(document[item])] if item in document else []

    def write(values: Any, base: str) -> Document:  # noqa: ANN401  # of anything
        return {item: [kind.write(each, base) for each in values]}

    return Kind("many", parse, write)


def struct(**parts: Kind) -> Kind:
    """Return the kind of a small group that is kept as one value (an item of a list)."""

    def parse(raw: object) -> Document:
        if not is_document(raw):
            raise ValueError("is not a group of elements")
        document = cast("Document", raw)
        return {key: kind.parse(document[key]) for key, kind in parts.items() if key in document}

    def write(value: Document, base: str) -> Document:
        return {key: parts[key].write(inner, base) for key, inner in value.items() if key in parts}

    return Kind("struct", parse, write)


STRING: Final = text(_TEXT_LIMIT)
LABEL: Final = text(_NAME_LIMIT)
NAME: Final = Kind("string", _name)
INTEGER: Final = integer()
DECIMAL: Final = Kind("decimal", _decimal)
BOOLEAN: Final = Kind("boolean", _boolean)
DATE: Final = Kind("date", _date)
