"""What befalls a primary, its standby or the monitor, and what makes it whole again."""

from __future__ import annotations

import asyncio
import signal
from typing import Final, Literal, Protocol, get_args

from engine_pg.formation import Formation
from engine_pg.formation.place import MONITOR
from lab.machines import Machines

Kind = Literal["kill", "freeze", "vanished", "partition", "switchover", "standby", "monitor"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
UNSEATING: Final[tuple[Kind, ...]] = KINDS[:5]
"""Those after which another node is the primary; the others kill a standby, or the monitor."""

RELOAD: Final = signal.SIGHUP
"""At which keepers and servers read their settings again."""


class Ground(Protocol):
    """A formation on machines."""

    @property
    def machines(self) -> Machines:
        """Return the machines."""
        ...

    @property
    def formation(self) -> Formation:
        """Return the formation."""
        ...

    async def part(self, old: str) -> None:
        """Cut the network in two, with the old primary on the smaller side."""
        ...


async def begin(kind: Kind, ground: Ground, old: str) -> None:
    """Let it happen; when this returns, it has."""
    match kind:
        case "kill":
            await _signal(ground, old, signal.SIGKILL)
        case "freeze":
            await _signal(ground, old, signal.SIGSTOP)
        case "vanished":
            await ground.machines.silence(old)  # first: a dying process says goodbye
            await _signal(ground, old, signal.SIGKILL)
        case "partition":
            await ground.part(old)
        case "switchover":
            await asyncio.to_thread(ground.formation.switchover, lambda _: None)
        case "standby":
            [other, *_] = [name for name in ground.formation.place().nodes if name != old]
            await _signal(ground, other, signal.SIGKILL)
        case "monitor":
            await _signal(ground, MONITOR, signal.SIGKILL)


async def end(kind: Kind, ground: Ground, old: str) -> None:
    """Undo it; the old primary then comes back as a standby."""
    await ground.machines.heal()
    if kind == "freeze":
        await _signal(ground, old, signal.SIGCONT)


async def _signal(ground: Ground, name: str, number: signal.Signals) -> None:
    await asyncio.to_thread(ground.formation.signal, name, number)
