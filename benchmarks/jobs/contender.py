"""What is compared: how each contender submits, what is not final yet, and how it works."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, Protocol

CONCURRENCY: Final = 10
"""Jobs that one worker process runs at once, of every contender."""


@dataclass(frozen=True, slots=True)
class Order:
    """One command: its number, and how long its step takes."""

    number: int
    hold_s: float = 0.0


class Client(Protocol):
    """Submits commands and sees what became of them."""

    async def submit(self, order: Order) -> None:
        """Submit a command; it is durable when this returns."""
        ...

    async def remaining(self) -> int:
        """Return how many commands are not final."""
        ...


Began = Callable[[int], None]
"""Called by the step of a command with its number."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to run commands; `recovers` says what it does about a killed worker."""

    name: str
    what: str
    recovers: str
    prepare: Callable[[str], Awaitable[None]]
    open: Callable[[str], AbstractAsyncContextManager[Client]]
    work: Callable[[str, str, Began], Coroutine[None, None, None]]
    """Run what is submitted, as the worker process of a name, until cancelled."""
    by_itself: bool = True  # another worker takes a killed one's jobs over
