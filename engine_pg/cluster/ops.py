"""What goes over a lock session: operations, those who wait for them, those who keep the results.

Does not promise: that an operation whose caller was cancelled does not happen. Its result is handed
back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import UUID

from engine_pg.db.tx import Record
from engine_pg.errors import EngineError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who joins: a random id of this life, and what people call the node."""

    member_id: UUID
    node: str
    address: str = ""
    version: str = ""


@dataclass(slots=True)
class Op:
    """One operation of a batch; `settle` runs at once when its result is known."""

    body: Record
    settle: Callable[[Record], None]
    fail: Callable[[EngineError], None]
    sync: bool = True
    repeat: bool = True  # after a resume; else the resume itself has settled it


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
    """What the member knows that it has: grants, commands it runs, leaderships."""

    grants: Sequence[Record] = ()
    commands: Sequence[UUID] = ()
    leaderships: Sequence[Record] = ()


@dataclass(slots=True)
class Owners:
    """Those who keep what the lock session proves; called by it, never awaited."""

    holdings: Callable[[], Holdings] = Holdings
    resumed: Callable[[Sequence[Record]], None] = lambda _grants: None
    observed: Callable[[Record], None] = lambda _view: None
    renewed: Callable[[float, float], None] = lambda _sent_at, _acknowledged_at: None


@dataclass(slots=True)
class Counters:
    """For metrics: what the session did since it joined."""

    batches: int = 0
    operations: int = 0
    resumes: int = 0
    renewal_s: float = 0.0
