"""The cluster's settings in the replica: what is shown of them, also without the database.

What a node goes by is `configuration.live`, which has them before there is a replica.
"""

from __future__ import annotations

from typing import Any, Final, LiteralString

from engine_pg.configuration.store import TOPIC, Book, Stored, book_with
from engine_pg.replica.table import Table
from engine_pg.replica.view import View

STORED: Final[LiteralString] = "select to_jsonb(t) as row from setting t"

SETTINGS: Final[tuple[Table[Any], ...]] = (
    Table(
        kind=Stored,
        topic=TOPIC,
        copy=STORED,
        key=lambda record: record["name"],
        place=lambda row: (row.name,),
    ),
)


def book(view: View) -> Book:
    """Return all settings."""
    return book_with(view.of(Stored))
