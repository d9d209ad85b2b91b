"""A whole engine on one machine: PostgreSQL, nodes, simulated hosts; for trying and for demos.

Each part is a real process that may be killed, frozen and started again. Whatever happens to the
starter, the processes die with it; PostgreSQL, a daemon, is adopted by the next stack.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import Final, Literal, Self

import httpx

import engine_pg
from engine_pg.api.accounts import users
from engine_pg.api.accounts.passwords import Passwords
from engine_pg.clock import boottime
from engine_pg.configuration import store
from engine_pg.configuration.store import Author
from engine_pg.db.database import Database
from engine_pg.db.embedded import EmbeddedPostgres
from engine_pg.db.migrate import upgrade
from engine_pg.demo.process import Process
from engine_pg.demo.rest import Client
from engine_pg.demo.state import Ports, StateFolder
from engine_pg.errors import Conflict, Invalid, NotFound, Unavailable
from engine_pg.formation import Formation, Inside, Plan, here
from engine_pg.settings import load_settings
from engine_pg.supervisor import Background, uninterrupted

ADMIN: Final = "admin@internal"
SIMULATOR: Final = "hosts"
_BOUND_S: Final = 60.0
_FORMATION_BOUND_S: Final = 300.0
_AWAY_S: Final = 30.0  # nobody waits for us yet: a busy machine may take its time
_POLL_S: Final = 0.1
_OURS: Final = ("ENGINE_DATABASE_URL", "ENGINE_NODE", "ENGINE_LISTEN_PORT", "ENGINE_ADVERTISED_URL")
_DEATHS: Final = 3  # a process that died this often while starting will not come up


@dataclass(frozen=True, slots=True)
class Options:
    """How big the stack is, where its nodes listen (0: the kept ports, or free ones), settings."""

    nodes: int = 3
    hosts: int = 3
    base_port: int = 0
    fencing: Literal["all", "none"] = "all"
    settings: Mapping[str, object] = field(default_factory=dict[str, object])
    formation: Plan | None = None  # a database that survives its primary, instead of one server
    inside: Inside = here  # what commands of each part, the formation's too, begin with


class Stack:
    """Runs while its `async with` block does; its parts are named node-1, node-2, ..., hosts."""

    def __init__(self, state: StateFolder, options: Options, tell: Callable[[str], None]) -> None:
        self.state = state
        self.options = options
        self.processes: dict[str, Process] = {}
        self.database_url: str = os.environ.get("ENGINE_DATABASE_URL", "")
        self.embedded: EmbeddedPostgres | None = None
        self.formation: Formation | None = None
        if options.formation is not None:
            if self.database_url:
                raise Invalid("ENGINE_DATABASE_URL names a database: there is none to be made")
            self.formation = Formation(state.formation, options.inside)
        elif not self.database_url:
            self.embedded = EmbeddedPostgres(state.postgres)
        self._tell = tell
        self._ports = Ports(0, 0, 0)
        self._exits = AsyncExitStack()

    @property
    def urls(self) -> Sequence[str]:
        """Return the addresses of the nodes' APIs."""
        first = self._ports.api
        return [f"http://127.0.0.1:{first + number}" for number in range(self.options.nodes)]

    @property
    def host_ports(self) -> Sequence[int]:
        """Return the ports of the simulated hosts on 127.0.0.1."""
        return range(self._ports.hosts, self._ports.hosts + self.options.hosts)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as exits:
            exits.enter_context(self.state.locked())
            load_settings(database_url=self.database_url or "postgresql://embedded", node="node-1")
            await self._start_database(exits)
            self._ports = self.state.ports(
                nodes=self.options.nodes, hosts=self.options.hosts, api=self.options.base_port
            )
            exits.callback(self.state.forget_description)
            background = await exits.enter_async_context(Background())
            exits.push_async_callback(self._stop_processes)
            self.processes = {process.name: process for process in self._made()}
            self.state.hosts_ready.unlink(missing_ok=True)
            for process in self.processes.values():
                process.start()
                background.start(process.keep(), name=process.name)
            await self._until_ready(*self.processes.values())
            self._exits = exits.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._exits.__aexit__(kind, error, traceback)

    def client(self) -> Client:
        """Return a client that logs in as the administrator."""
        return Client(self.urls, ADMIN, self.state.admin_password())

    async def start(self, name: str) -> None:
        """Start a part again that was killed or stopped, and wait until it serves."""
        self.processes[name].start()
        await self._until_ready(self.processes[name])

    async def restart_database(self) -> None:
        """Crash PostgreSQL and start it again."""
        if self.embedded is None:
            raise Conflict("the database is no single server of ours that could be restarted")
        await uninterrupted(asyncio.to_thread(self.embedded.restart_immediate), _BOUND_S)

    def kill_everything(self) -> None:
        """Kill all processes at once, for those who cannot wait for an orderly end."""
        for process in self.processes.values():
            process.kill()

    async def _start_database(self, exits: AsyncExitStack) -> None:
        if embedded := self.embedded:
            exits.push_async_callback(asyncio.to_thread, embedded.stop)
            await uninterrupted(asyncio.to_thread(embedded.start), _BOUND_S)
            self.database_url = embedded.url()
            self._tell(f"PostgreSQL listens on 127.0.0.1:{embedded.port()}")
        if (formation := self.formation) and (plan := self.options.formation):
            exits.push_async_callback(asyncio.to_thread, self._stop_formation, formation)
            up = asyncio.to_thread(formation.up, plan, self._tell)
            await uninterrupted(up, _FORMATION_BOUND_S)
            self.database_url = formation.url()
        await uninterrupted(asyncio.to_thread(upgrade, self.database_url), _BOUND_S)
        await self._ensure_admin()
        async with Database(self.database_url, away_s=_AWAY_S) as database, database.write() as tx:
            for name, value in self.options.settings.items():
                await store.assign(tx, name, value, Author(ADMIN))

    def _stop_formation(self, formation: Formation) -> None:
        with suppress(NotFound):  # it never began
            formation.down(self._tell)

    async def _ensure_admin(self) -> None:
        file = self.state.password_file
        new = not file.exists()
        hashed = await Passwords().hash(self.state.admin_password())
        async with Database(self.database_url, away_s=_AWAY_S) as database, database.write() as tx:
            if await users.add(tx, ADMIN, hashed) or not new:
                return
            if self.embedded is None and self.formation is None:
                file.unlink()
                raise Conflict(f"your database knows {ADMIN}: write the password to {file}")
            await users.set_password(tx, ADMIN, hashed)

    async def _stop_processes(self) -> None:
        """Stop the nodes first: what they still have to say to the hosts shall be heard."""
        nodes = [process for name, process in self.processes.items() if name != SIMULATOR]
        async with asyncio.TaskGroup() as group:
            for process in nodes:
                group.create_task(process.stop())
        await self.processes[SIMULATOR].stop()

    def _made(self) -> Iterator[Process]:
        program = (sys.executable, "-m", "engine_pg")
        inherited = {name: text for name, text in os.environ.items() if name not in _OURS}
        journal, ready = str(self.state.journal), str(self.state.hosts_ready)
        yield Process(
            SIMULATOR,
            [
                *(*program, "host-sim", "--hosts", str(self.options.hosts)),
                *(
                    "--base-port",
                    str(self._ports.hosts),
                    "--control-port",
                    str(self._ports.control),
                ),
                *("--journal", journal, "--ready-file", ready, "--fencing", self.options.fencing),
            ],
            self._tell,
            self._describe,
            env=inherited,
            log=self.state.logs / f"{SIMULATOR}.log",
        )
        for number in range(1, self.options.nodes + 1):
            name = f"node-{number}"
            own = {
                "ENGINE_DATABASE_URL": self.database_url,
                "ENGINE_NODE": name,
                "ENGINE_LISTEN_PORT": str(self._ports.api + number - 1),
            }
            if self.formation is not None:
                own["ENGINE_MONITOR_URL"] = self.formation.monitor_url()
            yield Process(
                name,
                [*self.options.inside(name), *program, "serve"],
                self._tell,
                self._describe,
                env=inherited | own,
                log=self.state.logs / f"{name}.log",
            )

    async def _until_ready(self, *processes: Process) -> None:
        async with httpx.AsyncClient(trust_env=False) as http:
            deadline = boottime() + _BOUND_S
            for process in processes:
                while not await self._serves(process, http):
                    if process.deaths >= _DEATHS or boottime() > deadline:
                        raise Unavailable(f"{process.name} does not come up:\n{process.tail()}")
                    await asyncio.sleep(_POLL_S)

    async def _serves(self, process: Process, http: httpx.AsyncClient) -> bool:
        if process.name == SIMULATOR:
            ready = self.state.hosts_ready
            return ready.exists() and json.loads(ready.read_text())["pid"] == process.pid
        url = self.urls[int(process.name.removeprefix("node-")) - 1]
        try:
            return (await http.get(f"{url}/readyz")).status_code == HTTPStatus.OK
        except httpx.TransportError:
            return False

    def _describe(self) -> None:
        """Publish what runs where, for demos and people that attach to the stack."""
        nodes = [process for name, process in self.processes.items() if name != SIMULATOR]
        self.state.describe(
            {
                "version": engine_pg.__version__,
                "pid": os.getpid(),
                "database_url": self.database_url,
                "postgres": str(self.state.postgres) if self.embedded else None,
                "formation": str(self.state.formation) if self.formation else None,
                "user": ADMIN,
                "password_file": str(self.state.password_file),
                "nodes": [
                    {"name": process.name, "url": url, "pid": process.pid, "log": str(process.log)}
                    for process, url in zip(nodes, self.urls, strict=True)
                ],
                "simulator": {
                    "pid": self.processes[SIMULATOR].pid,
                    "control": f"127.0.0.1:{self._ports.control}",
                    "journal": str(self.state.journal),
                    "host_ports": list(self.host_ports),
                },
            }
        )
