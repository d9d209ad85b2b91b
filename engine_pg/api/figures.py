"""What no replica holds, for it changes with every heartbeat: asked for, and not for long.

Does not promise an answer: while the database is away there is none, and nobody waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

from engine_pg.api.services import Services
from engine_pg.cluster import vitals
from engine_pg.cluster.vitals import Vitals
from engine_pg.commands import shown
from engine_pg.db.tx import Tx
from engine_pg.errors import Unavailable
from engine_pg.replica.reading import Reading

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MembersFigures:
    """Of each member its heartbeats and holdings, and how many commands it runs."""

    vitals: Mapping[UUID, Vitals]
    commands: Mapping[UUID, int]


async def ask(
    services: Services, reading: Reading, question: Callable[[Tx], Awaitable[T]]
) -> T | None:
    """Return what the database answers, or None while it is away."""
    if reading.stale_s is not None:
        return None
    try:
        async with (
            asyncio.timeout(services.settings.now.read_wait_s),
            services.db.read() as tx,
        ):
            return await question(tx)
    except (TimeoutError, Unavailable):
        return None


async def members_figures(tx: Tx) -> MembersFigures:
    """Return the figures of all members."""
    return MembersFigures(await vitals.vitals(tx), await shown.open_commands(tx))
