"""A planned switchover: looked at before, asked of the monitor, watched until it is done.

pg_auto_failover drains the old primary itself: it shuts it down in order, which ships all that was
committed, and only then lets the other one take writes. Who waits for a commit meanwhile loses his
connection and looks up what became of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from engine_pg.clock import boottime
from engine_pg.errors import Conflict, EngineError, Unavailable
from engine_pg.formation.asking import ask
from engine_pg.formation.place import MONITOR, Place
from engine_pg.formation.state import FormationState, look

PERFORM: Final = "select pgautofailover.perform_failover('default', 0)"
PROVE: Final = "select pg_logical_emit_message(true, 'formation', 'it takes writes')"
_MOST_LAG_BYTES: Final = 16 * 1024 * 1024
_BOUND_S: Final = 60.0
_POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Switched:
    """What a switchover did."""

    old: str
    new: str
    writable_after_s: float
    settled_after_s: float


class Switchover:
    """One switchover of a formation."""

    def __init__(self, place: Place) -> None:
        self._place = place

    async def run(self, tell: Callable[[str], None]) -> Switched:
        """Check, perform, verify; raises `Conflict` when it had better not begin."""
        before = await look(self._place)
        if objections := list(objections_to(before)):
            raise Conflict("no switchover: " + "; ".join(objections))
        old = before.primary
        assert old is not None
        tell(f"{old.name} is primary, its standby has all of it: asking the monitor")
        began = boottime()
        await ask(self._place, MONITOR, PERFORM)
        new = await self._writable(old.name, began)
        writable_s = boottime() - began
        tell(f"{new} takes writes after {writable_s:.1f} s; waiting for {old.name} to follow")
        await self._followed(began)
        return Switched(old.name, new, round(writable_s, 2), round(boottime() - began, 2))

    async def _writable(self, old: str, began: float) -> str:
        """Wait until a commit succeeds on another node than the old primary; return its name."""
        while boottime() < began + _BOUND_S:
            for name in self._place.nodes:
                with suppress(EngineError):
                    if name != old and await ask(self._place, name, PROVE):
                        return name
            await asyncio.sleep(_POLL_S)
        raise Unavailable(f"no other node took writes within {_BOUND_S:g} s: look at its status")

    async def _followed(self, began: float) -> None:
        while not (await look(self._place)).settled:
            if boottime() > began + _BOUND_S:
                raise Unavailable(
                    f"writes go on, but no standby follows within {_BOUND_S:g} s: look at its"
                    " status"
                )
            await asyncio.sleep(_POLL_S)


def objections_to(state: FormationState) -> Iterator[str]:
    """Yield what stands in the way of a switchover."""
    if state.monitor != "up":
        yield "the monitor does not answer"
        return
    yield from state.warnings
    for node in state.nodes:
        if not node.healthy:
            yield f"{node.name} fails its checks"
        if node.lag_bytes is not None and node.lag_bytes > _MOST_LAG_BYTES:
            yield f"{node.name} is {node.lag_bytes >> 20} MB behind"
