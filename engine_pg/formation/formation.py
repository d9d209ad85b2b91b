"""The life of a formation: made once, started, adopted, switched over, stopped."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from engine_pg.clock import boottime
from engine_pg.errors import Conflict, EngineError, Unavailable
from engine_pg.formation.access import (
    grant_replicator,
    set_password,
    set_up_database,
    set_up_watcher,
)
from engine_pg.formation.asking import ask
from engine_pg.formation.autoctl import Autoctl, Inside
from engine_pg.formation.layout import include_settings, lay_out
from engine_pg.formation.place import KEEPER, MONITOR, REPLICATOR, Place, Plan, laid_out, opened
from engine_pg.formation.processes import ask_to_stop, gone, processes_in, signal_all
from engine_pg.formation.programs import programs
from engine_pg.formation.state import FormationState, look
from engine_pg.formation.switching import Switched, switch_over_at

_BOUND_S: Final = 60.0
_SETTLE_S: Final = 180.0  # a whole copy may be under way
_STOP_S: Final = 20.0
_POLL_S: Final = 0.2
_AGAIN_S: Final = 0.5
_CHECKPOINT_S: Final = 30.0

Tell = Callable[[str], None]


def here(_: str) -> tuple[str, ...]:
    """Say that the monitor and all nodes are on this machine."""
    return ()


class Formation:
    """A monitor and its data nodes in one folder."""

    def __init__(self, folder: Path, inside: Inside = here) -> None:
        self._folder = folder.absolute()
        self._inside = inside

    def up(self, plan: Plan, tell: Tell) -> FormationState:
        """Start all, or adopt what runs; returns when every node is where it belongs."""
        found = programs()
        place = laid_out(self._folder, plan)
        autoctl = Autoctl(place, found, self._inside)
        if not place.memory.complete:
            self._clear(place)
        lay_out(place, found)
        for name in place.memory.ports:
            if not processes_in(place.room(name)):
                self._start(place, autoctl, name, tell)
        state = asyncio.run(_settled(place, autoctl, tell))
        asyncio.run(set_up_watcher(place))
        if not place.memory.complete:
            place.keep(complete=True)
        return state

    def place(self) -> Place:
        """Return where it is; raises `NotFound` when there is none."""
        return opened(self._folder)

    def url(self) -> str:
        """Return the address of the engine's database, password included."""
        return self.place().url()

    def monitor_url(self) -> str:
        """Return the address of its monitor, password included."""
        return self.place().monitor_url()

    def state(self) -> FormationState:
        """Return what it looks like now."""
        return asyncio.run(look(self.place()))

    def switchover(self, tell: Tell) -> Switched:
        """Let another node be the primary, in order; returns when that takes writes."""
        return asyncio.run(switch_over_at(self.place(), tell))

    def start(self, name: str) -> None:
        """Start the monitor or a node again, after it died or was stopped."""
        place = self.place()
        if not processes_in(place.room(name)):
            Autoctl(place, programs(), self._inside).start(name)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to all processes of the monitor or of a node."""
        signal_all(self.place().room(name), number)

    def down(self, tell: Tell, *, delete: bool = False) -> None:
        """Stop all, the monitor first: it is to fail nobody over. Nothing is left running."""
        place = self.place()
        for group in ([MONITOR], place.nodes):
            _stop(place, group, tell)
        if left := processes_in(place.home):
            raise Unavailable(f"processes of the formation still run: {left}")
        if delete:
            self._clear(place)
            shutil.rmtree(place.home, ignore_errors=True)
            for file in (place.authority, self._folder / "formation.json"):
                file.unlink(missing_ok=True)
            tell(f"deleted what was in {self._folder}")

    def _start(self, place: Place, autoctl: Autoctl, name: str, tell: Tell) -> None:
        """Start a node, after making it where there is none."""
        new = not place.data(name).exists()
        if new:
            tell(f"making {name} on port {place.memory.ports[name]}")
            _make(place, autoctl, name)
        tell(f"starting {name}")
        autoctl.start(name)
        if new:
            asyncio.run(_furnish(place, autoctl, name))

    def _clear(self, place: Place) -> None:
        """Take away what a bring-up left half made, or all of a formation that ended."""
        with suppress(EngineError):
            signal_all(place.home, signal.SIGKILL)
        if processes_in(place.home):
            raise Conflict(f"processes still work in {place.home}")
        for folder in (*map(place.room, place.memory.ports), place.home / ".config"):
            shutil.rmtree(folder, ignore_errors=True)
        for folder in (place.home / ".local", place.home / "pg_autoctl", place.sockets):
            shutil.rmtree(folder, ignore_errors=True)


def _make(place: Place, autoctl: Autoctl, name: str) -> None:
    """Create a node; the copy that a further one makes begins with a checkpoint."""
    first = place.nodes[0]
    try:
        if name in (MONITOR, first):
            autoctl.create(name)
        else:
            asyncio.run(_hurrying(place, first, lambda: autoctl.create(name)))
    except BaseException:
        with suppress(EngineError):
            signal_all(place.room(name), signal.SIGKILL)
        raise
    if name in (MONITOR, first):
        include_settings(place, name)
    autoctl.configure(name)


async def _hurrying(place: Place, primary: str, make: Callable[[], None]) -> None:
    """Do something while the primary's checkpoints are quick instead of spread over minutes."""
    work = asyncio.to_thread(make)
    async with asyncio.TaskGroup() as group:
        copied = group.create_task(work)
        while not copied.done():
            with suppress(EngineError):
                await ask(place, primary, "checkpoint", bound_s=_CHECKPOINT_S)
            await asyncio.wait([copied], timeout=_POLL_S)


async def _furnish(place: Place, autoctl: Autoctl, name: str) -> None:
    """Give a new server what it lacks, once it answers: passwords, roles, the database."""
    if name == MONITOR:
        await _answers(place, autoctl, name)
        await set_password(place, name, KEEPER)
    elif name == place.nodes[0]:
        await _answers(place, autoctl, name)
        await set_password(place, name, REPLICATOR)
        await grant_replicator(place, name)
        await set_up_database(place, name)


async def _answers(place: Place, autoctl: Autoctl, name: str) -> None:
    deadline = boottime() + _BOUND_S
    while True:
        try:
            await ask(place, name, "select 1")
        except EngineError as error:
            if boottime() > deadline:
                said = f"{name} does not come up: {error}\n{autoctl.tail(name)}"
                raise Unavailable(said) from error
            await asyncio.sleep(_POLL_S)
        else:
            return


async def _settled(place: Place, autoctl: Autoctl, tell: Tell) -> FormationState:
    """Wait until every node is where it belongs; servers that run take changed settings over."""
    for name in place.memory.ports:
        with suppress(EngineError):
            await ask(place, name, "select pg_reload_conf()")
    tell("waiting for the standby to be synchronous")
    deadline = boottime() + _SETTLE_S
    while not (state := await look(place)).settled:
        for name in place.memory.ports:
            if not processes_in(place.room(name)):  # it died, or fell over what another left
                tell(f"{name} has ended; starting it again")
                await asyncio.to_thread(autoctl.start, name)
        if boottime() > deadline:
            words = [f"{node.name}: {node.state}, {node.access}" for node in state.nodes]
            tails = [autoctl.tail(node.name) for node in state.nodes if node.state != node.goal]
            raise Unavailable("\n".join(["the formation does not settle", *words, *tails]))
        await asyncio.sleep(_AGAIN_S)
    return state


def _stop(place: Place, names: list[str], tell: Tell) -> None:
    names = [name for name in names if processes_in(place.room(name))]
    for name in names:
        ask_to_stop(place.room(name))
    for name in names:
        if not gone(place.room(name), _STOP_S):
            tell(f"{name} did not stop within {_STOP_S:g} s and was killed")
            signal_all(place.room(name), signal.SIGKILL)
        else:
            tell(f"stopped {name}")
