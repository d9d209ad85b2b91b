"""The story of a node that dies in the middle of its work, and of those that take over.

Measured from the kill, by looking at the database: when the last leadership of the dead member was
led elsewhere, and when the last command that it ran was run, or over, elsewhere.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from engine_pg.clock import boottime
from engine_pg.db.tx import Record
from engine_pg.demo.story import Scene
from engine_pg.demo.verdict import Figure
from engine_pg.demo.watch import LEADERSHIPS, POLL_S, RUN_BY, Watch

PROMISED_S: Final = 0.5
"""How much longer than a lease a takeover may take."""

_CHOICE_S: Final = 30.0
_BOUND_S: Final = 30.0
_LEAST_RUNNING: Final = 2
_WARM_UP_S: Final = (0.5, 2.0)


class Takeover:
    """What a dead member had, and when the last of it was somebody else's."""

    def __init__(self, watch: Watch, member: UUID) -> None:
        self._watch = watch
        self._member = member
        self._since = boottime()
        self._waiting = [True, True]
        self.leaderships: set[str] = set()
        self.commands: set[UUID] = set()
        self.leaderships_s = 0.0
        self.commands_s = 0.0

    async def follow(self, bound_s: float) -> None:
        """Look until everything is somebody else's, or the bound is reached."""
        while any(self._waiting) and boottime() - self._since < bound_s:
            await self._look()
            await asyncio.sleep(POLL_S)

    async def _look(self) -> None:
        leaders = await self._watch.rows(LEADERSHIPS)
        own = await self._watch.rows(RUN_BY, {"member": self._member})
        self.leaderships |= {row["name"] for row in leaders if row["member_id"] == self._member}
        self.commands |= {row["command_id"] for row in own}
        states = await self._watch.commands(list(self.commands))
        elapsed_s = boottime() - self._since
        vacant = any(row["name"] in self.leaderships and self._waits(row) for row in leaders)
        stranded = any(not row["final"] and self._waits(row) for row in states.values())
        if vacant or self._waiting[0]:
            self.leaderships_s = elapsed_s
        if stranded or self._waiting[1]:
            self.commands_s = elapsed_s
        self._waiting = [vacant, stranded]

    def _waits(self, row: Record) -> bool:
        return row["member_id"] in (None, self._member)


async def kill_node(scene: Scene) -> Sequence[Figure]:
    """Kill the node that runs most commands right now, and watch the others take over."""
    await asyncio.sleep(scene.dice.uniform(*_WARM_UP_S))
    victim = await scene.watch.busiest(_LEAST_RUNNING, _CHOICE_S)
    scene.target.signal(victim["node"], signal.SIGKILL)
    takeover = Takeover(scene.watch, victim["member_id"])
    scene.tell(f"Killed {victim['node']}, which ran {victim['running']} commands")
    await takeover.follow(_BOUND_S)
    bound_s = victim["ttl_s"] + PROMISED_S
    return [
        Figure("ttl_s", "lease", victim["ttl_s"], "s"),
        Figure("leaderships", "leaderships of the killed node", len(takeover.leaderships), least=1),
        Figure(
            "leaderships_s",
            "until all of them were led elsewhere",
            takeover.leaderships_s,
            "s",
            most=bound_s,
        ),
        Figure("commands", "commands that it ran", len(takeover.commands), least=1),
        Figure(
            "commands_s",
            "until all of them were adopted or over",
            takeover.commands_s,
            "s",
            most=bound_s,
        ),
    ]
