"""What goes over a lock session: operations, those who wait for them, those who keep the results.

Does not promise: that an operation whose caller was cancelled does not happen. Its result is handed
back.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar
from uuid import UUID

from psycopg.types.json import Jsonb

from engine_pg.cluster.keys import Grant
from engine_pg.cluster.lines import Entry
from engine_pg.db.tx import Record
from engine_pg.errors import EngineError, MemberEnded

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who joins: a random id of this life, and what people call the node."""

    member_id: UUID
    node: str
    address: str = ""
    version: str = ""
    salt: int = 0  # of its advisory keys: they are the database's, shared by all its clusters

    @property
    def phase(self) -> float:
        """Where between two heartbeats its own instant lies, from 0 to 1: see `Heartbeats`."""
        return self.member_id.int % 1024 / 1024

    def params(self) -> Record:
        """Return it as the statement of a join takes it."""
        return {
            "member": self.member_id,
            "node": self.node,
            "address": self.address,
            "version": self.version,
        }


class Asking(Entry):
    """A request for locks, as a batch carries it."""

    __slots__ = ("tries", "waits")

    sync: Final = True
    repeat: Final = True
    tries: bool  # False: it only takes a ticket, somebody of this process is in the way
    waits: bool

    @property
    def size(self) -> int:
        """How many keys it is about."""
        return len(self.wanted)

    @abstractmethod
    def granted(self, tokens: Sequence[int]) -> None:
        """Learn the tokens, one for each key; called before anything can resume."""

    @abstractmethod
    def refused(self, answer: Record) -> None:
        """Learn of the ticket, or of who is in the way."""

    @abstractmethod
    def fail(self, error: EngineError) -> None:
        """Learn that it was not carried out."""


class Releasing:
    """Grants that are given back; one that is lost on the way is repeated by the resume."""

    __slots__ = ("grants",)

    sync: Final = False
    repeat: Final = False

    def __init__(self, grants: tuple[Grant, ...]) -> None:
        self.grants = grants

    @property
    def size(self) -> int:
        """How many keys it is about."""
        return len(self.grants)

    def fail(self, _error: EngineError) -> None:
        """Do nothing: what an ended member held is given back with it."""


@dataclass(slots=True)
class Op:
    """Any other operation of a batch; `settle` runs at once when its result is known."""

    body: Record
    settle: Callable[[Record], None]
    fail: Callable[[EngineError], None]
    sync: bool = True
    repeat: bool = True  # after a resume; else the resume itself has settled it
    size: Final = 1


Part = Asking | Releasing | Op


class Asked(Generic[T]):
    """Where the caller of an operation waits; an answer nobody takes any more is handed back."""

    def __init__(self, *, abandoned: Callable[[T], None]) -> None:
        self._future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._abandoned = abandoned

    def answer(self, value: T) -> None:
        """Give the answer, or hand it back when the caller was cancelled meanwhile."""
        if self._future.done():
            self._abandoned(value)
        else:
            self._future.set_result(value)

    def refuse(self, error: EngineError) -> None:
        """Give an error."""
        if not self._future.done():
            self._future.set_exception(error)

    async def wait(self) -> T:
        """Wait for the answer."""
        try:
            return await self._future
        except asyncio.CancelledError:
            if not self._future.cancelled() and self._future.exception() is None:
                self._abandoned(self._future.result())
            raise


@dataclass(frozen=True, slots=True)
class Holdings:
    """What the member knows that it has: grants, tickets, commands it runs, leaderships."""

    grants: Sequence[Record] = ()
    tickets: Sequence[int] = ()
    commands: Sequence[UUID] = ()
    leaderships: Sequence[Record] = ()

    def params(self) -> Record:
        """Return them as the statement of a resume takes them."""
        return {
            "held": Jsonb(list(self.grants)),
            "tickets": list(self.tickets),
            "commands": list(self.commands),
            "leaderships": Jsonb(list(self.leaderships)),
        }


def _nothing(*_: object) -> None:
    """Keep nothing."""


@dataclass(slots=True)
class Owners:
    """Those who keep what the lock session proves; called by it, never awaited."""

    holdings: Callable[[], Holdings] = Holdings
    resumed: Callable[[Sequence[Record]], None] = _nothing
    observed: Callable[[Record], None] = _nothing
    renewed: Callable[[float, float], None] = _nothing
    ring: Callable[[Sequence[str]], None] = _nothing  # members whose tickets are first now
    ended: Callable[[MemberEnded], None] = _nothing
    changed: Callable[[], None] = _nothing  # rows that others follow, by what is now committed
