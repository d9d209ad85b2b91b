"""The tables `setting` and `setting_change`: what differs from the defaults, and how it came so.

Who changes a setting waits until nobody else does, and then checks all of them together: of two
who looked at the same version, the second is told. Triggers give the version, write the history
and the audit event: a change by SQL leaves the same trace.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, LiteralString

from psycopg.types.json import Jsonb

from engine_pg.configuration.definition import ClusterSettings, field_of, overlaid, tolerated
from engine_pg.db.tx import Record, Tx
from engine_pg.errors import Invalid, Outdated

TOPIC: Final = "setting"
"""The doorbell of changes, and their topic in the change feed."""
MOST: Final = 10_000
_LONGEST: Final = 1000

READ: Final[LiteralString] = """
select name, value, version, changed_at, changed_by from setting order by name
"""
TURN: Final[LiteralString] = "select pg_advisory_xact_lock(7006, 0)"
AUTHOR: Final[LiteralString] = """
select set_config('engine_pg.changed_by', %(by)s, true),
       set_config('engine_pg.reason', %(reason)s, true)
"""
WRITE: Final[LiteralString] = """
insert into setting (name, value) values (%(name)s, %(value)s::jsonb)
on conflict (name) do update set value = excluded.value
"""
HISTORY: Final[LiteralString] = """
select version, name, old_value, new_value, changed_at, changed_by, reason from setting_change
 where name = coalesce(%(name)s::text, name) order by version desc limit %(most)s
"""


@dataclass(frozen=True, slots=True)
class Stored:
    """A setting that was changed at some time; a value of None is the default."""

    name: str
    value: Any
    version: int
    changed_at: datetime
    changed_by: str


@dataclass(frozen=True, slots=True)
class Book:
    """All settings at one moment; `refused` are stored values that break a rule, with the rule."""

    settings: ClusterSettings
    stored: Mapping[str, Stored]
    refused: Mapping[str, str]

    @property
    def version(self) -> int:
        """Rises with every change of any setting."""
        return max((each.version for each in self.stored.values()), default=0)

    def version_of(self, name: str) -> int:
        """Return the version of one setting; 0: it was never changed."""
        stored = self.stored.get(name)
        return 0 if stored is None else stored.version

    def overrides(self) -> dict[str, object]:
        """Return the values that are in force in the place of defaults."""
        return {
            name: each.value
            for name, each in self.stored.items()
            if each.value is not None and name not in self.refused
        }


@dataclass(frozen=True, slots=True)
class Author:
    """Who changes something, and why."""

    name: str
    reason: str = ""

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise Invalid("whoever changes something says who he is")
        if len(self.reason) > _LONGEST or not self.reason.isprintable():
            raise Invalid(f"the reason should be one line of at most {_LONGEST} characters")


async def read(tx: Tx) -> Book:
    """Return all settings."""
    return book_of(await tx.all(READ))


def book_of(records: list[Record]) -> Book:
    """Return all settings out of the table's rows."""
    return book_with(Stored(**record) for record in records)


def book_with(rows: Iterable[Stored]) -> Book:
    """Return all settings out of what was changed at some time."""
    stored = {each.name: each for each in rows}
    given = {name: each.value for name, each in stored.items() if each.value is not None}
    settings, refused = tolerated(given)
    return Book(settings, stored, refused)


def told(row: Record) -> Record:
    """Return a row as the table has it out of one that the feed told."""
    return row | {"changed_at": datetime.fromisoformat(row["changed_at"])}


async def assign(
    tx: Tx, name: str, value: object, author: Author, *, expected: int | None = None
) -> Book:
    """Give a setting a value of its type; raises `NotFound`, `Invalid` or `Outdated`."""
    field_of(name)
    if value is None:
        raise Invalid(f"{name} should have a value; a reset gives it its default")
    book = await _in_turn(tx, name, expected)
    settings = overlaid(book.overrides() | {name: value})
    value = getattr(settings, name)
    stored = book.stored.get(name)
    if stored is not None and stored.value == value and name not in book.refused:
        return book
    return await _write(tx, name, Jsonb(value), author)


async def reset(tx: Tx, name: str, author: Author, *, expected: int | None = None) -> Book:
    """Give a setting its default back; raises `NotFound` or `Outdated`."""
    field_of(name)
    book = await _in_turn(tx, name, expected)
    stored = book.stored.get(name)
    if stored is None or stored.value is None:
        return book
    return await _write(tx, name, None, author)


async def history(tx: Tx, *, name: str | None = None, most: int = MOST) -> list[Record]:
    """Return the changes, the newest first, of one setting or of all."""
    return await tx.all(HISTORY, {"name": name, "most": most})


async def _in_turn(tx: Tx, name: str, expected: int | None) -> Book:
    await tx.all(TURN)
    book = await read(tx)
    found = book.version_of(name)
    if expected is not None and expected != found:
        by = f", by {book.stored[name].changed_by}" if found else ""
        raise Outdated(f"{name} is at version {found}{by}, not {expected}: look again")
    return book


async def _write(tx: Tx, name: str, value: Jsonb | None, author: Author) -> Book:
    await tx.all(AUTHOR, {"by": author.name.strip(), "reason": author.reason.strip()})
    await tx.run(WRITE, {"name": name, "value": value})
    return await read(tx)
