"""One life after the other: a node whose member was ended joins again, as a new member."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final

from engine_pg.clock import boottime
from engine_pg.cluster.leaders import Singleton
from engine_pg.cluster.membership import Membership
from engine_pg.db.database import Database
from engine_pg.errors import (
    DatabaseAway,
    EngineError,
    LeaseLost,
    MemberEnded,
    OutcomeUnknown,
    Unavailable,
    innermost,
)

log = logging.getLogger(__name__)

_SHORT_LIFE_S: Final = 10.0
_LEAVE_S: Final = 10.0
_RETRY_S: Final = 0.5


async def live(one_life: Callable[[], Awaitable[None]], stop: asyncio.Event) -> None:
    """Live again and again until told to stop; a life that fails ends nothing but itself."""
    delay_s = 0.2
    while not stop.is_set():
        started = boottime()
        try:
            await one_life()
        except* MemberEnded as ended:
            log.warning("this member ended: %s", innermost(ended))
        except* EngineError as errors:
            log.warning("not a member: %s", innermost(errors))
        except* Exception:  # one life fails; the process serves on, and the next begins
            log.exception("this member failed")
        delay_s = 0.2 if boottime() - started > _SHORT_LIFE_S else min(delay_s * 1.6, 1.5)
        with suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await stop.wait()


async def live_until_left(membership: Membership, stop: asyncio.Event) -> None:
    """Run a member; its end is no error once it is told to stop."""
    try:
        await membership.run()
    except* MemberEnded:
        if not stop.is_set():  # it leaves: nothing must cut that short
            raise


class Lives:
    """The members that one process is, one after the other, and what it offers to lead."""

    def __init__(
        self, new: Callable[[], Membership], db: Database, singletons: Mapping[str, Singleton]
    ) -> None:
        self.membership: Membership | None = None
        self._new = new
        self._db = db
        self._singletons = singletons
        self._refused: EngineError | None = None
        self._changed = asyncio.Event()
        self._undeclared = asyncio.Event()
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Live until told to leave."""
        await live(self._one_life, self._stop)

    async def leave(self, running: asyncio.Task[None]) -> None:
        """End the life in order, and the running of lives with it."""
        self._stop.set()
        self._become(self.membership)
        await asyncio.wait([running], timeout=_LEAVE_S)

    def declare(self) -> None:
        """Make known, soon, what was added to the singletons."""
        self._undeclared.set()

    async def current(self, bound_s: float) -> Membership:
        """Return the member of now, waiting for the next life while there is none."""
        deadline = boottime() + bound_s
        while self.membership is None or self.membership.session.ended is not None:
            error = self._refused
            if self._stop.is_set():
                raise MemberEnded("the cluster was left")
            if error is not None and not isinstance(error, Unavailable | OutcomeUnknown):
                raise error
            try:
                async with asyncio.timeout(deadline - boottime()):
                    await self._changed.wait()
            except TimeoutError:
                raise DatabaseAway(f"not a member yet: {error or 'it is joining'}") from error
        return self.membership

    async def trusted(self, bound_s: float) -> Membership:
        """Return the member of now, waiting while it is past its lease."""
        membership = await self.current(bound_s)
        try:
            async with asyncio.timeout(bound_s):
                await membership.session.until_trusted()
        except TimeoutError as error:
            raise LeaseLost(f"no lease was renewed for {bound_s:g} s") from error
        return membership

    async def _one_life(self) -> None:
        membership = self._new()
        self._register(membership)
        try:
            await membership.join()
        except EngineError as error:
            self._become(None, error)
            raise
        self._become(membership)
        try:
            async with asyncio.TaskGroup() as group:
                living = group.create_task(live_until_left(membership, self._stop))
                declaring = group.create_task(self._declare(membership))
                await self._stop.wait()
                await membership.leave()
                living.cancel()
                declaring.cancel()
        finally:
            self._become(None)

    def _become(self, membership: Membership | None, refused: EngineError | None = None) -> None:
        self.membership, self._refused = membership, refused
        self._changed.set()
        self._changed = asyncio.Event()

    def _register(self, membership: Membership) -> None:
        for name, singleton in self._singletons.items():
            membership.leaders.register(name, singleton)

    async def _declare(self, membership: Membership) -> None:
        """Make the singletons known that were offered after the member joined."""
        while True:
            await self._undeclared.wait()
            self._undeclared.clear()
            self._register(membership)
            try:
                await membership.declare()
            except (Unavailable, OutcomeUnknown) as error:
                log.info("singletons not declared, trying again: %s", error)
                self._undeclared.set()
                await asyncio.sleep(_RETRY_S)
            membership.session.observe_soon()
