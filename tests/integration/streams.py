"""Clients and servers of `GET /api/v1/changes` for tests: real sockets, and real processes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import psycopg
import uvicorn
from apinode import FAST, PASSWORD, USER, Api, RecordedCommands
from integration.nodes import eventually

from engine_pg.api.accounts import users
from engine_pg.api.accounts.passwords import Passwords
from engine_pg.api.app import create_app
from engine_pg.api.changes.tail import Tail
from engine_pg.api.replicated import TABLES
from engine_pg.api.services import Services
from engine_pg.clock import boottime
from engine_pg.cluster.feed import Feed
from engine_pg.cluster.topics import CHANGES
from engine_pg.configuration.live import LiveSettings
from engine_pg.db.database import Database
from engine_pg.db.listener import Doorbells
from engine_pg.inventory.numbering import Numbering
from engine_pg.replica.reading import Reads
from engine_pg.replica.replica import Replica
from engine_pg.settings import PREFIX

PATH = "/api/v1/changes"
INSERT = "insert into data_center (data_center_id, name) values (gen_random_uuid(), %s)"
PATIENCE_S = 20.0
"""For what takes a moment, on a machine that is busy with other things."""
BASIC = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@dataclass
class Seen:
    """One event as a client sees it."""

    kind: str
    id: str
    data: Any


@dataclass
class Consumer:
    """A client that remembers the last id, as browsers do; `events` are all that it ever got."""

    last_id: str = ""
    events: list[Seen] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    status: int = 0
    ended: bool = False  # in order, by the server

    @property
    def changes(self) -> list[Any]:
        return [event.data for event in self.events if event.kind == "change"]

    def names(self, topic: str = "data_center") -> list[str]:
        return [each["row"]["name"] for each in self.changes if each["topic"] == topic]

    async def connect(self, url: str, *, authorization: str = BASIC, **params: Any) -> None:
        """Read until the stream ends, or the caller cancels."""
        headers = {"Authorization": authorization, "Accept": "text/event-stream"}
        if self.last_id:
            headers["Last-Event-ID"] = self.last_id
        timeout = httpx.Timeout(PATIENCE_S, read=2 * PATIENCE_S)
        self.ended = False
        async with (
            httpx.AsyncClient(timeout=timeout, trust_env=False) as client,
            client.stream("GET", url + PATH, headers=headers, params=params) as answer,
        ):
            self.status = answer.status_code
            if self.status != 200:
                self.comments.append((await answer.aread()).decode())
                return
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert "content-encoding" not in answer.headers
            await self._read(answer)
        self.ended = True

    async def _read(self, answer: httpx.Response) -> None:
        buffer = b""
        async for chunk in answer.aiter_bytes():
            *blocks, buffer = (buffer + chunk).split(b"\n\n")
            for block in blocks:
                self._take(block.decode())

    def _take(self, block: str) -> None:
        fields = dict(line.partition(": ")[::2] for line in block.split("\n"))
        self.last_id = fields.get("id", self.last_id)
        if "" in fields:
            self.comments.append(fields[""])
        if "data" in fields:
            self.events.append(Seen(fields["event"], self.last_id, json.loads(fields["data"])))

    async def until(self, true: Callable[[], object], bound_s: float = PATIENCE_S) -> None:
        deadline = boottime() + bound_s
        while not true():
            assert boottime() < deadline, (self.status, self.comments[-3:], len(self.events))
            await asyncio.sleep(0.01)

    async def begun(self) -> None:
        await self.until(lambda: self.last_id and self.status == 200)


@asynccontextmanager
async def following(consumer: Consumer, url: str, **params: Any) -> AsyncGenerator[Consumer]:
    """Let a consumer read beside the block."""
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(consumer.connect(url, **params))
        try:
            yield consumer
        finally:
            reading.cancel()


@dataclass
class Served:
    """A node's API in this process, with all of its parts at hand."""

    url: str
    api: Api
    tail: Tail
    settings: LiveSettings
    reasons: list[str]


def free_socket() -> socket.socket:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    return listening


@asynccontextmanager
async def serving(
    url: str, *, window_bytes: int = 1 << 20, poll_s: float = 1.0, **settings: Any
) -> AsyncGenerator[Served]:
    """Serve a database on a real socket; the client is logged in as the administrator."""
    bells = Doorbells(url)
    reasons: list[str] = []
    async with AsyncExitStack() as stack:
        database = Database(url, on_commit=lambda: bells.ring(CHANGES))
        db = await stack.enter_async_context(database)
        async with db.write() as tx:
            await users.add(tx, USER, await Passwords(FAST).hash(PASSWORD))
        live = LiveSettings.of(**settings)
        tail = Tail(
            Feed(db, bells, name="test", poll_s=poll_s),
            window_bytes=window_bytes,
            leaving=lambda: "".join(reasons),
        )
        commands = RecordedCommands(db)
        replica = Replica(Feed(db, bells), bells, TABLES)
        services = Services(
            db=db,
            commands=commands,
            settings=live,
            tail=tail,
            reads=Reads(replica, live),
            numbering=Numbering(db, bells),
            passwords=Passwords(FAST),
        )
        config = uvicorn.Config(
            create_app(services), log_config=None, lifespan="off", timeout_graceful_shutdown=2
        )
        server = _Server(config)
        listening = stack.enter_context(free_socket())
        place = f"http://127.0.0.1:{listening.getsockname()[1]}"
        async with asyncio.TaskGroup() as group:
            jobs = [group.create_task(one.run()) for one in (bells, tail, replica)]
            serving_ = group.create_task(server.serve([listening]))
            async with httpx.AsyncClient(
                base_url=place, timeout=PATIENCE_S, trust_env=False
            ) as client:
                node = Api(client, db, commands, reasons)
                await eventually(lambda: started(server))
                token = (await node.login()).json()["access_token"]
                client.headers["Authorization"] = f"Bearer {token}"
                yield Served(place, node, tail, live, reasons)
            reasons[:] = ["the test is over"]
            server.should_exit = True
            await serving_
            for job in jobs:
                job.cancel()


async def started(server: uvicorn.Server) -> bool:
    return server.started


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self):
        yield


class NodeProcess:
    """`engine-pg serve` in a process of its own."""

    def __init__(self, url: str, process: asyncio.subprocess.Process) -> None:
        self.url = url
        self.process = process

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)


@asynccontextmanager
async def node_process(database_url: str, name: str) -> AsyncGenerator[NodeProcess]:
    async with started_process(database_url, name) as node:
        await _until_ready(node)
        yield node


@asynccontextmanager
async def started_process(database_url: str, name: str) -> AsyncGenerator[NodeProcess]:
    """Start one, ready or not."""
    with free_socket() as listening:
        port = listening.getsockname()[1]
    own = {
        "ENGINE_DATABASE_URL": database_url,
        "ENGINE_NODE": name,
        "ENGINE_LISTEN_PORT": str(port),
    }
    inherited = {key: text for key, text in os.environ.items() if not key.startswith(PREFIX)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "engine_pg", "serve"),
        env=inherited | own,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    node = NodeProcess(f"http://127.0.0.1:{port}", process)
    try:
        yield node
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(20):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def _until_ready(node: NodeProcess) -> None:
    deadline = boottime() + 60
    async with httpx.AsyncClient(trust_env=False) as client:
        while True:
            assert node.process.returncode is None, "the node died"
            assert boottime() < deadline, "the node does not come up"
            with contextlib.suppress(httpx.TransportError):
                if (await client.get(f"{node.url}/readyz")).status_code == 200:
                    return
            await asyncio.sleep(0.1)


async def add_data_centers(url: str, names: list[str]) -> None:
    """Insert rows as a DBA would, each in a transaction of its own."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as session:
        for name in names:
            await session.execute(INSERT, [name])


def run(scenario: Awaitable[None], bound_s: float = 100.0) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(bound_s):
            await scenario

    asyncio.run(bounded())


@asynccontextmanager
async def following_until_broken(
    consumer: Consumer, url: str, **params: Any
) -> AsyncGenerator[Consumer]:
    """Let a consumer read until the node's death breaks its connection; leave the block then."""

    async def read() -> None:
        with contextlib.suppress(httpx.TransportError):
            await consumer.connect(url, **params)

    async with asyncio.TaskGroup() as group:
        reading = group.create_task(read())
        yield consumer
        await asyncio.wait([reading], timeout=10)
        assert reading.done()
