"""All that runs: PostgreSQL, the relay, the witness, engine nodes with hosts, lock clients."""

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

from chaos.history import History
from chaos.relay import RelayControl
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
create table chaos_write (
  write_id uuid primary key, key text not null, token bigint not null, member_id uuid not null,
  previous bigint, count bigint not null, unique (key, count)
);
"""
CONDUCTOR = "conductor"
CLIENTS = 6
LEADERSHIPS = 12
BOUND_S = 30.0


class Nodes(Stack):
    """A stack whose nodes reach the database each by a link of its own."""

    def __init__(
        self,
        state: StateFolder,
        options: Options,
        tell: Callable[[str], None],
        urls: dict[str, str],
    ) -> None:
        super().__init__(state, options, tell)
        self._urls = urls

    @override
    def _made(self) -> Iterator[Process]:
        for process in super()._made():
            if url := self._urls.get(process.name):
                process._env = dict(process._env) | {"ENGINE_DATABASE_URL": url}
            yield process


class Arena:
    """The running whole; `open_arena` makes it."""

    def __init__(
        self, folder: Path, *, seed: int, ttl_s: float, tell: Callable[[str], None]
    ) -> None:
        self.folder = folder
        self.seed = seed
        self.ttl_s = ttl_s
        self.tell = tell
        self.records = folder / "history"
        self.servers = Servers(folder)
        self.relay = RelayControl(str(folder / "relay.socket"))
        self.links: dict[str, int] = {}
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
        return parts._replace(netloc=f"{account}@127.0.0.1:{self.links[link]}").geturl()

    async def open_link(self, name: str) -> None:
        """Make a link to the primary."""
        port = self.servers.port
        answer = await self.relay.tell("open", name, target=port, seed=self.seed)
        self.links[name] = answer["port"]

    async def route(self, name: str) -> None:
        """Lead new connections of a link to the present primary."""
        await self.relay.tell("route", name, target=self.servers.port)

    def launch(self, name: str, module: str, *words: str) -> Process:
        """Start a process of ours, to be kept running."""
        assert self.background is not None
        paths = [str(Path(__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(paths)}
        command = [sys.executable, "-m", module, *words]
        log = self.folder / "logs" / f"{name}.log"
        process = Process(name, command, self.tell, lambda: None, env=environment, log=log)
        process.start()
        self.background.start(process.keep(), name=name)
        return process

    def twin(self, original: Process) -> Process:
        """Start a second process with the configuration of one that runs."""
        self._twins += 1
        name = f"{original.name}-twin-{self._twins}"
        if original.name in self.workers:
            return self.launch(name, "chaos.worker", self._plan(original.name, name))
        assert self.background is not None
        log = original.log.with_name(f"{name}.log")
        twin = Process(name, original._command, self.tell, lambda: None, env=original._env, log=log)
        twin.start()
        self.background.start(twin.keep(), name=name)
        return twin

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
    tell: Callable[[str], None],
) -> AsyncGenerator[Arena]:
    """Start everything and stop it at the end."""
    arena = Arena(folder, seed=seed, ttl_s=ttl_s, tell=tell)
    (folder / "logs").mkdir()
    async with AsyncExitStack() as exits:
        exits.push_async_callback(arena.servers.stop)
        await arena.servers.start()
        arena.background = await exits.enter_async_context(Background())
        for process in (
            arena.launch("relay", "chaos.relay", str(folder / "relay.socket")),
            arena.launch(
                "witness",
                "chaos.witness",
                str(folder / "witness.socket"),
                str(arena.records / "witness.jsonl"),
            ),
        ):
            exits.push_async_callback(process.stop)
        exits.callback(arena.relay.close)
        await _until_there(folder / "relay.socket", folder / "witness.socket")
        names = [f"node-{number}" for number in range(1, nodes + 1)]
        for name in (CONDUCTOR, *names):
            await arena.open_link(name)
        await _prepare(arena)
        for name in workers:
            await arena.launch_worker(name)
        if nodes:
            os.environ["ENGINE_DATABASE_URL"] = arena.url(CONDUCTOR)
            state = StateFolder(folder / "state")
            options = Options(
                nodes=nodes,
                base_port=free_ports(nodes),
                settings={"host_inflight_bound_s": 2},
            )
            urls = {name: arena.url(name) for name in names}
            arena.stack = await exits.enter_async_context(Nodes(state, options, tell, urls))
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


async def _until_there(*sockets: Path) -> None:
    deadline = boottime() + BOUND_S
    while not all(path.exists() for path in sockets):
        if boottime() > deadline:
            raise Unavailable(f"not there: {sockets}")
        await asyncio.sleep(0.02)
