"""A planned switchover: looked at before, asked of the monitor, watched until it is done.

pg_auto_failover drains the old primary itself: it shuts it down in order, which ships all that was
committed, and only then lets the other one take writes. Who waits for a commit meanwhile loses his
connection and looks up what became of it. A checkpoint before makes the one of the shutdown short.

The steps are the same wherever the formation is; `Ground` is how it is reached.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

from engine_pg.clock import boottime
from engine_pg.errors import Conflict, EngineError, OutcomeUnknown, Unavailable
from engine_pg.formation.asking import Sessions, ask
from engine_pg.formation.place import MONITOR, Place
from engine_pg.formation.state import FormationState, look

PERFORM: Final = "select pgautofailover.perform_failover('default', 0)"
PROVE: Final = """
select pg_logical_emit_message(true, 'formation', 'it takes writes')
 where current_setting('transaction_read_only') = 'off'
"""
"""The message alone may be written before the server lets others write."""
CHECKPOINT: Final = "checkpoint"
CHECKPOINT_S: Final = 60.0
_MOST_LAG_BYTES: Final = 16 * 1024 * 1024
_BOUND_S: Final = 60.0
_BEGUN_S: Final = 5.0
_POLL_S: Final = 0.05

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Switched:
    """What a switchover did."""

    old: str
    new: str
    writable_after_s: float
    settled_after_s: float

    def document(self) -> dict[str, Any]:
        """Return it as a document with keys that stay."""
        return asdict(self)


class Ground(Protocol):
    """A formation, as far as a switchover has to do with it."""

    async def look(self) -> FormationState:
        """Return what it looks like now."""
        ...

    async def checkpoint(self, primary: str) -> None:
        """Let a server write out what its shutdown would have to."""
        ...

    async def perform(self) -> None:
        """Ask the monitor to let another node be the primary."""
        ...

    async def successor(self, old: str) -> str | None:
        """Return who took a write in the place of the old primary, if anybody did yet."""
        ...


class Lab:
    """A formation on this machine, asked as superuser through its private sockets."""

    def __init__(self, place: Place, sessions: Sessions) -> None:
        self._place = place
        self._sessions = sessions

    async def look(self) -> FormationState:
        """Ask the monitor and all servers."""
        return await look(self._place)

    async def checkpoint(self, primary: str) -> None:
        """Let a server write out what its shutdown would have to."""
        await ask(self._place, primary, CHECKPOINT, bound_s=CHECKPOINT_S)

    async def perform(self) -> None:
        """Ask the monitor to let another node be the primary."""
        await ask(self._place, MONITOR, PERFORM)

    async def successor(self, old: str) -> str | None:
        """Try to commit on each other node."""
        for name in self._place.nodes:
            with suppress(EngineError):
                if name != old and await self._sessions.ask(name, PROVE):
                    return name
        return None


async def switch_over_at(place: Place, tell: Tell) -> Switched:
    """Switch a formation on this machine over."""
    async with Sessions(place) as sessions:
        return await Switchover(Lab(place, sessions)).run(tell)


class Switchover:
    """One switchover of a formation."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    async def run(self, tell: Tell) -> Switched:
        """Check, perform, verify; raises `Conflict` when it had better not begin."""
        before = await self._ground.look()
        if objections := list(objections_to(before)):
            raise Conflict("no switchover: " + "; ".join(objections))
        old = before.primary
        assert old is not None
        tell(f"{old.name} is primary, its standby has all of it: a checkpoint first")
        await self._checkpoint(old.name, tell)
        tell("asking the monitor")
        began = boottime()
        await self._perform(before, tell)
        new = await self._writable(old.name, began)
        writable_s = boottime() - began
        tell(f"{new} takes writes after {writable_s:.1f} s; waiting for {old.name} to follow")
        await self._followed(began)
        return Switched(old.name, new, round(writable_s, 2), round(boottime() - began, 2))

    async def _checkpoint(self, primary: str, tell: Tell) -> None:
        try:
            await self._ground.checkpoint(primary)
        except EngineError as error:
            tell(f"no checkpoint, the gap may be longer for it: {error}")

    async def _perform(self, before: FormationState, tell: Tell) -> None:
        """Ask the monitor; of an answer that is no consent, see whether it has begun all the same.

        It is not asked twice: a second failover would lead back.
        """
        try:
            await self._ground.perform()
        except EngineError as error:
            tell(f"the monitor did not consent ({error}): looking whether it has begun")
            if not await self._begun(before):
                raise Unavailable(f"the switchover did not begin: {error}") from error

    async def _begun(self, before: FormationState) -> bool:
        deadline, seen = boottime() + _BEGUN_S, False
        while boottime() < deadline:
            with suppress(EngineError):
                state = await self._ground.look()
                if [(node.name, node.goal) for node in state.nodes] != [
                    (node.name, node.goal) for node in before.nodes
                ] and state.monitor == "up":
                    return True
                seen = seen or state.monitor == "up"
            await asyncio.sleep(_POLL_S)
        if not seen:
            raise OutcomeUnknown(
                "whether the switchover has begun is not known, the monitor does not answer: look"
                " at the formation's status"
            )
        return False

    async def _writable(self, old: str, began: float) -> str:
        """Wait until a commit succeeds on another node than the old primary; return its name."""
        while boottime() < began + _BOUND_S:
            if (name := await self._ground.successor(old)) is not None:
                return name
            await asyncio.sleep(_POLL_S)
        raise Unavailable(f"no other node took writes within {_BOUND_S:g} s: look at its status")

    async def _followed(self, began: float) -> None:
        while not await self._settled():
            if boottime() > began + _BOUND_S:
                raise Unavailable(
                    f"writes go on, but no standby follows within {_BOUND_S:g} s: look at its"
                    " status"
                )
            await asyncio.sleep(_POLL_S)

    async def _settled(self) -> bool:
        with suppress(EngineError):
            return (await self._ground.look()).settled
        return False


def objections_to(state: FormationState) -> Iterator[str]:
    """Yield what stands in the way of a switchover."""
    if state.monitor != "up":
        yield "the monitor does not answer"
        return
    if len(state.nodes) < 2:
        yield "there is no other node"
    yield from state.warnings
    for node in state.nodes:
        if not node.healthy:
            yield f"{node.name} fails its checks"
        if node.lag_bytes is not None and node.lag_bytes > _MOST_LAG_BYTES:
            yield f"{node.name} is {node.lag_bytes >> 20} MB behind"
