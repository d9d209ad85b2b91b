"""All that runs: PostgreSQL, the network, the witness, engine nodes with hosts, lock clients."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from typing_extensions import override

from chaos import disks
from chaos.clocks import Clocks
from chaos.history import History
from chaos.namespaces import Namespaces
from chaos.network import CONDUCTOR, Network
from chaos.relay import Relays
from chaos.servers import Servers
from chaos.worker import Plan
from engine_pg.clock import boottime
from engine_pg.db.migrate import upgrade
from engine_pg.demo.process import Process
from engine_pg.demo.stack import Options, Stack
from engine_pg.demo.state import StateFolder, free_ports
from engine_pg.errors import Unavailable
from engine_pg.supervisor import Background

WORKERS_DATABASE = "workers"
TABLES = """
create table chaos_register (key text primary key, token bigint not null, count bigint not null);
create table chaos_filler (what text);
create table chaos_write (
  write_id uuid primary key, key text not null, token bigint not null, member_id uuid not null,
  previous bigint, count bigint not null, unique (key, count)
);
"""
CLIENTS = 6
LEADERSHIPS = 12
BOUND_S = 30.0
PARTS = (["relay"], ["witness", "witness.jsonl"])


class Nodes(Stack):
    """A stack whose nodes reach the database each by a link of its own."""

    def __init__(
        self,
        state: StateFolder,
        options: Options,
        tell: Callable[[str], None],
        arena: Arena,
    ) -> None:
        super().__init__(state, options, tell)
        self._arena = arena

    @override
    def _made(self) -> Iterator[Process]:
        for process in super()._made():
            if process.name in self._arena.links:
                url = {"ENGINE_DATABASE_URL": self._arena.url(process.name)}
                clock = self._arena.clocks.environment(process.name)
                process._env = dict(process._env) | url | clock
                process._command = self._arena.network.inside(process.name, process._command)
            yield process


class Arena:
    """The running whole; `open_arena` makes it."""

    def __init__(
        self,
        folder: Path,
        *,
        seed: int,
        ttl_s: float,
        namespaces: bool,
        tell: Callable[[str], None],
    ) -> None:
        self.folder = folder
        self.seed = seed
        self.ttl_s = ttl_s
        self.tell = tell
        self.records = folder / "history"
        self.namespaces = namespaces
        for home in ("first", "second") if namespaces else ():
            disks.mount(folder / home)
        self.servers = Servers(folder)
        self.clocks = Clocks(folder)
        if namespaces:
            self.clocks.give_servers_clocks(*self.servers.homes)
        self.network: Network = (
            Namespaces() if namespaces else Relays(str(folder / "relay.socket"), seed)
        )
        self.links: set[str] = set()
        self.workers: dict[str, Process] = {}
        self.stack: Nodes | None = None
        self.background: Background | None = None
        self._twins = 0
        self.records.mkdir()
        self.history = History(self.records / "conductor.jsonl", "conductor")

    def process(self, name: str) -> Process:
        """Return the process of a node or a worker."""
        if name in self.workers:
            return self.workers[name]
        assert self.stack is not None
        return self.stack.processes[name]

    def url(self, link: str, database: str = "engine") -> str:
        """Return the database's address as the client of a link sees it."""
        parts = urlsplit(self.servers.url(database))
        account = parts.netloc.rpartition("@")[0]
        host, port = self.network.address(link)
        return parts._replace(netloc=f"{account}@{host}:{port}").geturl()

    async def open_link(self, name: str, listens: int = 0) -> None:
        """Make a link to the primary for a process, which may listen on a port itself."""
        await self.network.open(name, target=self.servers.port, listens=listens)
        self.links.add(name)

    async def route(self, name: str) -> None:
        """Lead new connections of a link to the present primary."""
        await self.network.route(name, self.servers.port)

    def launch(self, name: str, module: str, *words: str) -> Process:
        """Start a process of ours, to be kept running."""
        assert self.background is not None
        paths = [str(Path(__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(paths)}
        command = [sys.executable, "-m", module, *words]
        if name in self.links:
            command = self.network.inside(name, command)
            environment |= self.clocks.environment(name)
        log = self.folder / "logs" / f"{name}.log"
        return self._kept(Process(name, command, self.tell, lambda: None, env=environment, log=log))

    async def twin(self, original: Process) -> Process:
        """Start a second process with the configuration of one that runs, on its own machine."""
        self._twins += 1
        name = f"{original.name}-twin-{self._twins}"
        await self.open_link(name)
        if original.name in self.workers:
            return self.launch(name, "chaos.worker", self._plan(original.name, name))
        command = self.network.inside(name, _outside(original._command))
        log = original.log.with_name(f"{name}.log")
        return self._kept(
            Process(name, command, self.tell, lambda: None, env=original._env, log=log)
        )

    def _kept(self, process: Process) -> Process:
        assert self.background is not None
        process.start()
        self.background.start(process.keep(), name=process.name)
        return process

    async def launch_worker(self, name: str) -> None:
        """Start a lock client with a link of its own."""
        if name not in self.links:
            await self.open_link(name)
        self.workers[name] = self.launch(name, "chaos.worker", self._plan(name, name))

    def _plan(self, name: str, label: str) -> str:
        plan = Plan(
            name=name,
            label=label,
            url=self.url(name, WORKERS_DATABASE),
            witness=str(self.folder / "witness.socket"),
            history=str(self.records / f"{label}.jsonl"),
            seed=self.seed,
            ttl_s=self.ttl_s,
            clients=CLIENTS,
            leaderships=LEADERSHIPS,
        )
        return json.dumps(asdict(plan))


@asynccontextmanager
async def open_arena(
    folder: Path,
    *,
    seed: int,
    ttl_s: float,
    nodes: int,
    workers: Sequence[str],
    namespaces: bool,
    tell: Callable[[str], None],
) -> AsyncGenerator[Arena]:
    """Start everything and stop it at the end; namespaces: only in an enclosure."""
    arena = Arena(folder, seed=seed, ttl_s=ttl_s, namespaces=namespaces, tell=tell)
    (folder / "logs").mkdir()
    async with AsyncExitStack() as exits:
        exits.push_async_callback(arena.servers.stop)
        await arena.servers.start()
        arena.background = await exits.enter_async_context(Background())
        for module, *more in PARTS[namespaces:]:
            await _start_part(arena, exits, module, *more)
        exits.push_async_callback(arena.network.close)
        first = free_ports(nodes) if nodes else 0
        names = [f"node-{number}" for number in range(1, nodes + 1)]
        await arena.open_link(CONDUCTOR)
        for name in names:
            await arena.open_link(name, first + names.index(name))
        await _prepare(arena)
        for name in workers:
            await arena.launch_worker(name)
        if nodes:
            os.environ["ENGINE_DATABASE_URL"] = arena.url(CONDUCTOR)
            state = StateFolder(folder / "state")
            options = Options(nodes=nodes, base_port=first)
            arena.stack = await exits.enter_async_context(Nodes(state, options, tell, arena))
        try:
            yield arena
        finally:
            for process in arena.workers.values():
                await process.stop()


async def _prepare(arena: Arena) -> None:
    """Make the workers' own cluster: a database beside the engine's, with the same schema."""
    async with await arena.servers.session() as administrator:
        await administrator.execute(f"create database {WORKERS_DATABASE} owner engine")
    url = arena.servers.url(WORKERS_DATABASE)
    await asyncio.to_thread(upgrade, url)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(TABLES)


def _outside(command: Sequence[str]) -> Sequence[str]:
    """Return a command without the namespace that it enters."""
    return command[2:] if command[0] == "nsenter" else command


async def _start_part(arena: Arena, exits: AsyncExitStack, part: str, *records: str) -> None:
    path = arena.folder / f"{part}.socket"
    files = [str(arena.records / record) for record in records]
    process = arena.launch(part, f"chaos.{part}", str(path), *files)
    exits.push_async_callback(process.stop)
    deadline = boottime() + BOUND_S
    while not os.access(path, os.R_OK):
        if boottime() > deadline:
            raise Unavailable(f"not there: {path}")
        await asyncio.sleep(0.02)
