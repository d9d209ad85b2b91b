"""What a lock is about: keys, modes, reasons, grants; and the refusal, which names the holders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple, Self
from uuid import UUID

from typing_extensions import override

from engine_pg.db.tx import Record
from engine_pg.errors import Invalid, Locked
from engine_pg.ids import hash64

KIND_LIMIT: Final = 64
ID_LIMIT: Final = 512
REASON_LIMIT: Final = 2000


class Mode(StrEnum):
    """How a key is held: alone, or together with other shared holders."""

    EXCLUSIVE = "exclusive"
    SHARED = "shared"


class _Key(NamedTuple):
    kind: str
    id: str


class LockKey(_Key):
    """What a lock is about: a kind (`host`, `vm`, `vm.name`, ...) and an id within it."""

    __slots__ = ()  # a tuple, whose hash is not Python's to compute: it is asked for all the time

    def __new__(cls, kind: str, id: str) -> Self:  # noqa: A002 - as the field is called
        """Make a key; raises `Invalid` for what the database would refuse."""
        _check("a lock's kind", kind, KIND_LIMIT)
        _check("a lock's id", id, ID_LIMIT)
        if not (kind and id):
            raise Invalid("a lock's key has a kind and an id")
        return super().__new__(cls, kind, id)

    @override
    def __str__(self) -> str:
        return f"{self.kind}/{self.id}"

    @property
    def advisory(self) -> int:
        """The 64-bit advisory key; a collision costs a wait, never safety."""
        return _advisory(self.kind, self.id)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A key and the mode in which it is asked for."""

    key: LockKey
    mode: Mode = Mode.EXCLUSIVE

    def __post_init__(self) -> None:
        _check_type("what is wanted", self.key, LockKey)
        _check_type("how it is wanted", self.mode, Mode)

    def conflicts(self, other: Wanted) -> bool:
        """Tell whether two wishes for one key exclude each other."""
        return self.mode is Mode.EXCLUSIVE or other.mode is Mode.EXCLUSIVE


@dataclass(frozen=True, slots=True)
class Reason:
    """Who wants a lock and why: what a refused one is told about the holder."""

    text: str = ""
    user_name: str = ""
    command_id: UUID | None = None

    def __post_init__(self) -> None:
        _check("a lock's reason", self.text, REASON_LIMIT)
        _check("a lock's user", self.user_name, ID_LIMIT)
        if self.command_id is not None:
            _check_type("a command's id", self.command_id, UUID)


class Grant(NamedTuple):
    """One key held, under its fencing token."""

    key: LockKey
    mode: Mode
    token: int

    @property
    def record(self) -> Record:
        """The grant as the protocol's SQL takes it."""
        return {"kind": self.key.kind, "id": self.key.id, "token": self.token}


class LockBusy(Locked):
    """A lock was refused; `holders` are records with node, command, user, reason and age."""

    def __init__(self, wanted: Sequence[Wanted], holders: Sequence[Record]) -> None:
        self.holders = tuple(holders)
        keys = ", ".join(str(each.key) for each in wanted)
        held_by = "; ".join(_told(each) for each in holders) or "somebody who asks at this instant"
        super().__init__(f"{keys} is locked: {held_by}")


@lru_cache(maxsize=65536)
def _advisory(kind: str, id_: str) -> int:
    return hash64(f"{kind}/{id_}")


def _check(what: str, text: str, limit: int) -> None:
    """Refuse what would fail the batch of everybody."""
    if len(text) <= limit and text.isascii() and "\0" not in text:
        return
    if len(text) > limit:
        raise Invalid(f"{what} has at most {limit} characters")
    if "\0" in text or text.encode(errors="ignore").decode() != text:
        raise Invalid(f"{what} has a character that no text of PostgreSQL can have")


def _check_type(what: str, value: object, kind: type) -> None:
    """Refuse what no type checker saw: found in the batch, it would end everybody's member."""
    if not isinstance(value, kind):
        raise Invalid(f"{what} is a {kind.__name__}, not {value!r}")


def canonical(wanted: Sequence[Wanted]) -> tuple[Wanted, ...]:
    """Return the wishes of a request in the order in which everybody asks; a key stands once."""
    if len(wanted) == 1:
        return (wanted[0],)
    ordered = sorted(set(wanted), key=lambda each: (each.key, each.mode))
    if len({each.key for each in ordered}) != len(ordered):
        raise Invalid("a key is wanted in two modes at once")
    if not ordered:
        raise Invalid("no key is wanted")
    return tuple(ordered)


def _told(holder: Record) -> str:
    who = holder.get("node") or "a member that ended (its command awaits adoption)"
    why = holder.get("reason") or "no reason given"
    user = f" for {holder['user_name']}" if holder.get("user_name") else ""
    waits = ", who waits" if holder.get("what") == "ticket" else ""
    age_s = float(holder.get("age_s") or 0)
    return f"{holder['mode']} by {who}{waits}{user}: {why}, since {age_s:.1f} s"
