"""One life after the other: a node whose member was ended joins again, as a new member."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from engine_pg.clock import boottime
from engine_pg.cluster.membership import Membership
from engine_pg.errors import EngineError, MemberEnded, innermost

log = logging.getLogger(__name__)

_SHORT_LIFE_S: Final = 10.0


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
