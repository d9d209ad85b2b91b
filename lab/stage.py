"""A whole engine on machines of its own: a formation, engine nodes, and clients of the database.

    monitor   node1 node2 (node3)   node-1 node-2 (...)   clients      each a machine
    the simulated hosts, and whoever runs this                         outside

Cut in two, the primary and node-1 are on one side, with a writer and a holder of locks on the
machine of node-1; everything else is on the other side, with a writer and a holder on `clients`.
The outside, with the hosts and the askers, reaches the nodes of both sides, and servers of the
other side only.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from engine_pg.clock import boottime
from engine_pg.db.database import Database
from engine_pg.demo.furnish import furnish
from engine_pg.demo.stack import Options, Stack
from engine_pg.demo.state import StateFolder
from engine_pg.demo.target import Target
from engine_pg.errors import EngineError, Unavailable
from engine_pg.formation import Formation, Plan
from engine_pg.formation.asking import Sessions, ask
from engine_pg.formation.place import MONITOR, Place
from engine_pg.formation.profiles import Profile
from engine_pg.formation.state import FormationState, look
from engine_pg.formation.switching import PROVE
from lab import holder, writer
from lab.journal import Entry, Journals
from lab.machines import ELSEWHERE, Machines

CLIENTS: Final = "clients"
APART: Final = "node-1"
"""The engine node on the old primary's side of a cut."""

_FORMATION_PORT: Final = 6000
_API_PORT: Final = 8080
_BOUND_S: Final = 60.0
_AWAY_S: Final = 30.0  # who judges is in no hurry
_POLL_S: Final = 0.02
_OPEN: Final = "select current_setting('transaction_read_only') = 'off' as open"

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Size:
    """How large a stage is."""

    data_nodes: Literal[2, 3] = 2
    engines: int = 2
    locks: int = 50
    ttl_s: float = 2.0
    profile: Profile = "fast"


class Stage:
    """What stands, and where; all of it may be hurt."""

    def __init__(self, folder: Path, size: Size, machines: Machines, stack: Stack) -> None:
        assert stack.formation is not None
        self.size = size
        self.machines = machines
        self.formation: Formation = stack.formation
        self.target = Target(stack.state)
        self._folder = folder
        self._journals = Journals(folder)
        self._stack = stack

    @property
    def place(self) -> Place:
        """Return where the formation keeps its files."""
        return self.formation.place()

    def noted(self, who: str, what: str, *, since: float = 0.0) -> list[Entry]:
        """Return what a client has noted."""
        return self._journals.noted(who, what, since=since)

    def database(self) -> Database:
        """Return the database that all are on."""
        return Database(self._stack.database_url, away_s=_AWAY_S)

    async def state(self) -> FormationState:
        """Ask the monitor and all servers, through their sockets: no cut is in the way."""
        return await look(self.place)

    async def primary(self) -> str:
        """Return the name of the primary."""
        found = (await self.state()).primary
        if found is None:
            raise Unavailable("there is no primary")
        return found.name

    async def taken_over(self, old: str) -> tuple[str, float]:
        """Wait until another node than the old primary takes writes; return which, and when."""
        return await successor(self.place, old, _BOUND_S)

    async def is_open(self, name: str) -> bool:
        """Say whether a server would let a client write, whoever confirms that then."""
        with suppress(EngineError):
            [found] = await ask(self.place, name, _OPEN)
            return bool(found["open"])
        return False

    async def part(self, old: str) -> None:
        """Cut the network in two: the old primary and one engine node, and all others."""
        engines = {f"node-{number}" for number in range(1, self.size.engines + 1)}
        others = {MONITOR, CLIENTS, *self.place.nodes, *engines} - {old, APART}
        await self.machines.cut({old}, {*others, ELSEWHERE})
        await self.machines.cut({APART}, others)

    async def mend(self) -> None:
        """Start what does not run, and wait until every server is where it belongs."""
        plan = self._stack.options.formation
        assert plan is not None
        await asyncio.to_thread(self.formation.up, plan, lambda _: None)

    async def client(self, name: str, machine: str, module: str, *words: str) -> Client:
        """Start a client of the database on a machine."""
        given = (module, self._stack.database_url, str(self._journals.path(name)), name)
        return await client(self._folder, self.machines.inside(machine), *given, *words)


async def successor(place: Place, old: str, bound_s: float) -> tuple[str, float]:
    """Wait until another node than the old primary takes writes; return which, and when."""
    others = [name for name in place.nodes if name != old]
    deadline = boottime() + bound_s
    async with Sessions(place) as sessions:
        while boottime() < deadline:
            for name in others:
                with suppress(EngineError):
                    if await sessions.ask(name, PROVE):
                        return name, boottime()
            await asyncio.sleep(_POLL_S)
    raise Unavailable(f"nobody took writes within {bound_s:g} s")


async def client(
    folder: Path, inside: Sequence[str], module: str, url: str, journal: str, name: str, *words: str
) -> Client:
    """Start a client of the database."""
    command = (*inside, sys.executable, "-m", module, url, journal, name, *words)
    with (folder / f"{name}.log").open("ab") as log:
        return Client(await asyncio.create_subprocess_exec(*command, stderr=log))


class Client:
    """A client's process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def stop(self) -> None:
        """End it."""
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def stage(folder: Path, size: Size, tell: Tell) -> AsyncGenerator[Stage]:
    """Set all up in a folder that others may pass through, and run it; in an `enclosure` only."""
    os.environ["ENGINE_LEASE_TTL_S"] = str(size.ttl_s)
    machines = Machines()
    names = [MONITOR, *(f"node{number}" for number in range(1, size.data_nodes + 1))]
    for number, name in enumerate(names):
        await machines.make(name, _FORMATION_PORT + number)
    for number in range(size.engines):
        await machines.make(f"node-{number + 1}", _API_PORT + number)
    await machines.make(CLIENTS)
    options = Options(
        nodes=size.engines,
        hosts=2,
        base_port=_API_PORT,
        settings={"host_inflight_bound_s": 2},
        formation=Plan(size.data_nodes, size.profile, _FORMATION_PORT),
        inside=machines.inside,
    )
    stack = Stack(StateFolder(folder / "state"), options, tell)
    async with stack, AsyncExitStack() as exits:
        async with stack.client() as client:
            await furnish(client, host_ports=stack.host_ports, vms=0, tell=tell)
        made = Stage(folder, size, machines, stack)
        await _make_tables(stack.database_url)
        for name, machine, role in (("near", CLIENTS, "heir"), ("far", APART, "keeper")):
            writes = await made.client(f"{name} writer", machine, writer.__name__, "ours")
            exits.push_async_callback(writes.stop)
            how = (f"{size.locks}", f"{size.ttl_s}", role)
            holds = await made.client(f"{name} holder", machine, holder.__name__, *how)
            exits.push_async_callback(holds.stop)
        tell("the stage is set")
        yield made


async def _make_tables(url: str) -> None:
    async with Database(url, away_s=_AWAY_S) as database, database.write() as tx:
        await tx.run(writer.TABLE)
        await tx.run(holder.TABLE)
