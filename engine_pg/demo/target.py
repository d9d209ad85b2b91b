"""A running stack, known by what it published: all that a story about its failure may lay hands on.

It makes no difference whose stack it is; one that `engine-pg up` shows in another terminal is
attacked, asked and judged in the same way as one that the story started for itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, cast

import httpx

from engine_pg.clock import boottime
from engine_pg.db.embedded import EmbeddedPostgres
from engine_pg.db.urls import libpq_url
from engine_pg.demo.furnish import furnish
from engine_pg.demo.rest import Client, Heard
from engine_pg.demo.stack import Options, Stack
from engine_pg.demo.state import StateFolder, free_ports
from engine_pg.errors import HostUnreachable, Invalid, NotFound, Unavailable
from engine_pg.supervisor import uninterrupted

_STARTS_AND_STOPS: Final = ("VM.create", "VM.destroy")
_READY_S: Final = 60.0
_RESTART_S: Final = 60.0
_NOT_OURS: Final = (
    "the database is not the stack's to restart: ENGINE_DATABASE_URL names a server that"
    " somebody else runs"
)
_POLL_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class NodeProcess:
    """A node's name, address and process; None: it is dead just now."""

    name: str
    url: str
    pid: int | None


class Target:
    """A stack that runs in a state folder."""

    def __init__(self, state: StateFolder) -> None:
        self.state = state

    @property
    def nodes(self) -> Sequence[NodeProcess]:
        """Return the nodes as they are now."""
        return [
            NodeProcess(node["name"], node["url"], node["pid"])
            for node in self.state.description()["nodes"]
        ]

    @property
    def database_url(self) -> str:
        """Return where the stack's database is."""
        return libpq_url(self.state.description()["database_url"])

    @property
    def server(self) -> EmbeddedPostgres:
        """Return the stack's PostgreSQL server, which must be its own."""
        folder = self.state.description()["postgres"]
        if folder is None:
            raise Invalid(_NOT_OURS)
        return EmbeddedPostgres(Path(folder))

    @property
    def host_ports(self) -> Sequence[int]:
        """Return the ports of the simulated hosts, in the order of their numbers."""
        return self.state.description()["simulator"]["host_ports"]

    def client(self, tell: Callable[[Heard], None] = lambda _: None) -> Client:
        """Return a client of all nodes that logs in as the administrator."""
        urls = [node.url for node in self.nodes]
        user = self.state.description()["user"]
        return Client(urls, user, self.state.admin_password(), tell=tell)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a node's process; a node that ends is started again by its stack."""
        pid = next((node.pid for node in self.nodes if node.name == name), None)
        if pid is None:
            raise NotFound(f"{name} does not run")
        os.kill(pid, number)

    async def restart_database(self) -> None:
        """Crash PostgreSQL and start it again."""
        await uninterrupted(asyncio.to_thread(self.server.restart_immediate), _RESTART_S)

    async def until_whole(self) -> None:
        """Wait until every node is ready."""
        deadline = boottime() + _READY_S
        async with httpx.AsyncClient(trust_env=False) as http:
            while waiting := [node.name for node in self.nodes if not await _ready(node, http)]:
                if boottime() > deadline:
                    raise Unavailable(f"not ready after {_READY_S:g} s: {', '.join(waiting)}")
                await asyncio.sleep(_POLL_S)

    async def slow_down(self, seconds: float, *, hosts: int) -> None:
        """Let the starts and stops of VMs take longer: some hosts act late, some answer late."""
        fault = {"fault": "delay", "verbs": _STARTS_AND_STOPS, "seconds": seconds}
        for number in range(1, hosts + 1):
            when = "after" if number % 2 else "before"
            await self._simulator({"host": number, "when": when} | fault)

    async def heal(self) -> None:
        """Take every fault out of the hosts."""
        for number in range(1, len(self.host_ports) + 1):
            await self._simulator({"host": number, "fault": "heal"})

    async def running_vms(self) -> dict[str, int]:
        """Return the VMs that run by what the hosts say, and the port of the host of each."""
        hosts = (await self._simulator({"status": True}))["hosts"]
        return {
            vm_id: host["port"]
            for host in hosts
            for vm_id, status in host["vms"].items()
            if status != "Down"
        }

    async def judged(self) -> dict[str, Any]:
        """Return the verdict on the hosts' journal, by the judge's own program."""
        journal = self.state.description()["simulator"]["journal"]
        judge = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "engine_pg", "host-sim", "verify", journal, "--json"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        said, complaint = await judge.communicate()
        if judge.returncode not in (0, 1) or not said:
            raise Unavailable(f"the journal cannot be judged: {complaint.decode().strip()}")
        return json.loads(said)

    async def _simulator(self, request: Mapping[str, object]) -> dict[str, Any]:
        host, _, port = self.state.description()["simulator"]["control"].rpartition(":")
        try:
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(json.dumps(request).encode() + b"\n")
            answer = cast("dict[str, Any]", json.loads(await reader.readline()))
            writer.close()
        except (OSError, ValueError) as problem:
            raise HostUnreachable(f"the simulated hosts do not answer: {problem}") from problem
        if not answer["ok"]:
            raise Invalid(answer["error"])
        return answer


@asynccontextmanager
async def attached(
    state: StateFolder, tell: Callable[[str], None], *, own_server: bool = False
) -> AsyncGenerator[Target]:
    """Yield the stack that runs in the folder; it must have a server of its own if we need one."""
    target = Target(state)
    if own_server:
        _ = target.server
    tell(f"Attached to the stack in {state.path}")
    await target.until_whole()
    yield target


@asynccontextmanager
async def started(
    options: Options, tell: Callable[[str], None], *, own_server: bool = False
) -> AsyncGenerator[Target]:
    """Yield a stack of its own in a temporary folder; a failure leaves the folder, to look into."""
    home = tempfile.mkdtemp(prefix="engine-pg-demo-")
    os.chmod(home, 0o711)  # PostgreSQL's borrowed account must pass through
    state = StateFolder(Path(home, "state"))
    stack = Stack(state, replace(options, base_port=free_ports(options.nodes)), tell)
    if own_server and stack.embedded is None:
        os.rmdir(home)
        raise Invalid(_NOT_OURS)
    to_look_into = False
    try:
        async with stack:
            async with stack.client() as client:
                await furnish(client, host_ports=stack.host_ports, vms=0, tell=tell)
            yield Target(state)
    except Exception:
        to_look_into = True
        tell(f"What the parts logged is in {state.logs}")
        raise
    finally:
        if not to_look_into:
            await asyncio.to_thread(shutil.rmtree, home)


async def _ready(node: NodeProcess, http: httpx.AsyncClient) -> bool:
    if node.pid is None:
        return False
    try:
        return (await http.get(f"{node.url}/readyz")).status_code == HTTPStatus.OK
    except httpx.TransportError:
        return False
