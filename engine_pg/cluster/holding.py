"""A lock around a block: what runs under a hold is cancelled when the hold is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from engine_pg.cluster.locks import Hold, Locks, Reason, Wanted
from engine_pg.cluster.trust import Trust
from engine_pg.errors import NotHeld
from engine_pg.supervisor import Background

_LOOK_S: Final = 0.05


@asynccontextmanager
async def holding(
    locks: Locks, trust: Trust, wanted: Sequence[Wanted], *, wait_s: float, reason: Reason
) -> AsyncGenerator[Hold]:
    """Hold all keys during the block, which is cancelled, with `NotHeld`, when they are lost."""
    hold = await locks.acquire(*wanted, wait_s=wait_s, reason=reason)
    try:
        async with _while_held(hold, trust):
            yield hold
    finally:
        locks.release(hold)


@asynccontextmanager
async def _while_held(hold: Hold, trust: Trust) -> AsyncGenerator[None]:
    loop = asyncio.get_running_loop()
    scope = asyncio.timeout(None)
    try:
        async with scope, Background() as background:
            watch = _watch(hold, trust, lambda: scope.reschedule(loop.time()))
            background.start(watch, name="hold")
            yield
    except TimeoutError:
        lost = _lost(hold, trust)
        if not scope.expired() or lost is None:
            raise
        raise type(lost)(str(lost)) from None


async def _watch(hold: Hold, trust: Trust, cancel: Callable[[], None]) -> None:
    while _lost(hold, trust) is None:  # noqa: ASYNC110 - neither of the two rings
        await asyncio.sleep(_LOOK_S)
    cancel()


def _lost(hold: Hold, trust: Trust) -> NotHeld | None:
    return hold.lost or trust.ended
