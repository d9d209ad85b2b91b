"""Why a run goes no further: it was cancelled, its time is over, or its runners keep ending.

A command is halted between two steps, and while it waits for a lock or for a host that was told
nothing; never between an intent and its outcome. What it did until then is reversed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from engine_pg.commands.rows import CommandView
from engine_pg.errors import EngineError


class Halted(EngineError):
    """The command goes no further, and what it did is reversed."""


class Cancelled(Halted):
    """Somebody asked for it."""


class Expired(Halted):
    """Its deadline has passed."""


class GivenUp(Halted):
    """So many runners ended while they ran it that no further one tries it."""


def halting(command: CommandView) -> Halted | None:
    """Return why a command is to be halted, if it is."""
    if command.cancel_asked_at is not None:
        return Cancelled(f"cancelled by {command.cancel_asked_by}")
    if command.overdue:
        return Expired("its deadline has passed")
    return None


class Halt:
    """Whether one run is to be halted, and the waits of it that end then.

    While it is `held` nothing ends by it: what a host may be at is broken off and looked up first.
    """

    def __init__(self) -> None:
        self.reason: Halted | None = None
        self.held = False
        self._armed = True
        self._waits: set[asyncio.Timeout] = set()

    def order(self, reason: Halted) -> None:
        """Halt the run; the first reason counts."""
        if self.reason is not None or not self._armed:
            return
        self.reason = reason
        for wait in () if self.held else self._waits:
            wait.reschedule(asyncio.get_running_loop().time())

    def disarm(self) -> None:
        """Halt the run no more: something was begun that is not taken back."""
        self.reason = None
        self._armed = False

    def check(self) -> None:
        """Raise the reason, if there is one and it is not held."""
        if self.reason is not None and not self.held:
            raise self.reason

    @asynccontextmanager
    async def cutting(self) -> AsyncGenerator[None]:
        """Cut a wait short, which changes nothing, when the run is halted."""
        self.check()
        wait = asyncio.timeout(None)
        try:
            async with wait:
                self._waits.add(wait)
                yield
        except TimeoutError:
            if wait.expired():
                self.check()
            raise
        finally:
            self._waits.discard(wait)
