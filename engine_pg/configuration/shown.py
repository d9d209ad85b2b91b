"""What people and their tools are shown of the cluster settings: documents for REST and the shell.

Their keys are documented in `docs/reference/rest.md` and stay.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from engine_pg.configuration.definition import NAMES, bounds_of, field_of
from engine_pg.configuration.store import Book
from engine_pg.db.tx import Record

Document = dict[str, Any]


def settings(book: Book) -> Document:
    """Return `version`, `settings`, and `warnings`: what was stored and is not in force."""
    warnings = [
        f"what is stored for {name} is not in force: {why}" for name, why in book.refused.items()
    ]
    return {
        "version": book.version,
        "settings": [setting(book, name) for name in NAMES],
        "warnings": warnings,
    }


def setting(book: Book, name: str) -> Document:
    """Return one setting; raises `NotFound`."""
    field, stored = field_of(name), book.stored.get(name)
    return {
        "name": name,
        "value": getattr(book.settings, name),
        "default": field.default,
        "minimum": None,
        "maximum": None,
        "enum": None,
        **bounds_of(name),
        "description": field.description,
        "version": book.version_of(name),
        "changed_at": None if stored is None else _moment(stored.changed_at),
        "changed_by": None if stored is None else stored.changed_by,
    }


def history(records: list[Record]) -> Document:
    """Return `changes`, whose old and new values of None are the default."""
    return {
        "changes": [record | {"changed_at": _moment(record["changed_at"])} for record in records]
    }


def _moment(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="milliseconds")
