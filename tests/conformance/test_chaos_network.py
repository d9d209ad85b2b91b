"""A network of the chaos runs does what it says, be it made of namespaces or of relays.

The claims run in a process of their own, which is enclosed where the network needs it.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from chaos.namespaces import Namespaces
from chaos.network import CONDUCTOR, Harm, Network
from chaos.relay import Relays

from engine_pg.clock import boottime
from lab.enclosure import enclosed, refusal

CLIENT = """
import os, socket, sys, threading
wire = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def listen():
    try:
        for line in wire.makefile():
            print(line, end="", flush=True)
    finally:
        os._exit(3)
threading.Thread(target=listen, daemon=True).start()
for line in sys.stdin:
    wire.sendall(line.encode())
"""
BOUND_S = 20.0  # far above what a retransmission after a cut takes
SILENCE_S = 0.7
CUT_S = 0.5


class Server:
    """Notes what it is told; answers `echo` with its own name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = 0
        self.heard: asyncio.Queue[str] = asyncio.Queue()
        self.writers: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        server = await asyncio.start_server(self._attend, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]

    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with suppress(ConnectionError):
            while line := await reader.readline():
                self.heard.put_nowait(line.decode().strip())
                if line == b"echo\n":
                    writer.write(self.name.encode() + b"\n")

    def say(self, line: str) -> None:
        self.writers[-1].write(line.encode() + b"\n")


class Client:
    """A process that uses a link."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    def say(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(line.encode() + b"\n")

    async def hear(self) -> str:
        assert self.process.stdout
        async with asyncio.timeout(BOUND_S):
            return (await self.process.stdout.readline()).decode().strip()

    async def asks(self) -> str:
        self.say("echo")
        return await self.hear()


@asynccontextmanager
async def client_of(network: Network, link: str, port: int = 0) -> AsyncGenerator[Client]:
    """Connect a process to the database, or to a port that it believes to be its machine's."""
    host, database = network.address(link)
    where = ("127.0.0.1", port) if port else (host, database)
    words = [sys.executable, "-c", CLIENT, where[0], f"{where[1]}"]
    process = await asyncio.create_subprocess_exec(
        *network.inside(link, words),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield Client(process)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def is_silent(heard: asyncio.Queue[str]) -> bool:
    try:
        async with asyncio.timeout(SILENCE_S):
            await heard.get()
    except TimeoutError:
        return True
    return False


async def a_cut_link_is_silent_and_delivers_late(network: Network, server: Server) -> None:
    async with client_of(network, "one") as client, client_of(network, "two") as other:
        assert await client.asks() == "first"
        assert await other.asks() == "first"
        await network.hurt("one", Harm(cut=True))
        client.say("held up")
        assert await other.asks() == "first", "a cut is of one link"
        for _ in range(3):
            assert await server.heard.get() == "echo"
        assert await is_silent(server.heard)
        await network.heal("one")
        async with asyncio.timeout(BOUND_S):
            assert await server.heard.get() == "held up"


async def a_cut_upward_lets_the_other_way_pass(network: Network, server: Server) -> None:
    async with client_of(network, "one") as client:
        await client.asks()
        await server.heard.get()
        await network.hurt("one", Harm(ways=("up",), cut=True))
        server.say("down")
        assert await client.hear() == "down"
        client.say("up")
        assert await is_silent(server.heard)
        await network.heal("one")
        async with asyncio.timeout(BOUND_S):
            assert await server.heard.get() == "up"


async def a_cut_downward_lets_the_other_way_pass(network: Network, server: Server) -> None:
    async with client_of(network, "one") as client:
        await client.asks()
        await server.heard.get()
        await network.hurt("one", Harm(ways=("down",), cut=True))
        client.say("echo")
        async with asyncio.timeout(BOUND_S):
            assert await server.heard.get() == "echo"
        hearing = asyncio.ensure_future(client.hear())
        assert not (await asyncio.wait([hearing], timeout=SILENCE_S))[0]
        await network.heal("one")
        assert await hearing == "first"


async def a_delay_is_met_both_ways(network: Network, server: Server) -> None:
    async with client_of(network, "one") as client:
        await client.asks()
        await network.hurt("one", Harm(delay_s=0.2))
        began = boottime()
        assert await client.asks() == server.name
        assert 0.4 <= boottime() - began < 0.8
        async with client_of(network, "one") as newcomer:  # its handshake is slow as well
            assert await newcomer.asks() == server.name
        await network.heal("one")
        await client.asks()  # what was in flight has gone
        began = boottime()
        await client.asks()
        assert boottime() - began < 0.2


async def a_loss_costs_time_and_no_byte(network: Network, server: Server) -> None:
    async with client_of(network, "one") as client:
        await client.asks()
        await network.hurt("one", Harm(loss=0.2))
        began = boottime()
        for _ in range(20):
            assert await client.asks() == server.name
        assert boottime() - began > 0.2


async def a_reset_ends_the_connections(network: Network, server: Server) -> None:
    async with client_of(network, "one") as client:
        await client.asks()
        await network.hurt("one", Harm(cut=True))
        await asyncio.sleep(CUT_S)
        await network.heal("one", reset=True)
        async with asyncio.timeout(BOUND_S):
            assert await client.process.wait() == 3
        async with client_of(network, "one") as newcomer:
            assert await newcomer.asks() == server.name


async def a_route_is_for_new_connections(network: Network, server: Server) -> None:
    second = Server("second")
    await second.start()
    async with client_of(network, "one") as client:
        assert await client.asks() == server.name
        await network.route("one", second.port)
        async with client_of(network, "one") as newcomer:
            assert await newcomer.asks() == "second"
            assert await client.asks() == server.name


async def an_isolated_machine_reaches_nobody(network: Network, server: Server) -> None:
    if not network.whole_machines:
        return
    host = Server("host")
    await host.start()
    async with client_of(network, "one", host.port) as client:
        assert await client.asks() == "host"
        await network.hurt("one", Harm(cut=True, everybody=True))
        client.say("echo")
        await host.heard.get()
        assert await is_silent(host.heard)
        await network.heal("one")
        assert await client.hear() == "host"
    assert server.writers == []


KINDS = ("relays",) if os.geteuid() != 0 or refusal() else ("relays", "namespaces")
CLAIMS = (
    a_cut_link_is_silent_and_delivers_late,
    a_cut_upward_lets_the_other_way_pass,
    a_cut_downward_lets_the_other_way_pass,
    a_delay_is_met_both_ways,
    a_loss_costs_time_and_no_byte,
    a_reset_ends_the_connections,
    a_route_is_for_new_connections,
    an_isolated_machine_reaches_nobody,
)


@pytest.mark.parametrize("claim", [claim.__name__ for claim in CLAIMS])
@pytest.mark.parametrize("kind", KINDS)
def test_the_network_does_what_it_says(kind, claim, tmp_path):
    paths = [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    run = subprocess.run(
        [sys.executable, __file__, kind, claim, str(tmp_path)],
        env=dict(os.environ) | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        check=False,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr


async def prove(kind: str, claim: str, folder: str) -> None:
    server = Server("first")
    await server.start()
    relay = None
    network: Network = Namespaces()
    if kind == "relays":
        path = f"{folder}/relay.socket"
        words = (sys.executable, "-m", "chaos.relay", path)
        relay = await asyncio.create_subprocess_exec(*words)
        while not os.access(path, os.R_OK):  # noqa: ASYNC110 - a socket's birth rings nowhere
            await asyncio.sleep(0.02)
        network = Relays(path, 1)
    for link in (CONDUCTOR, "one", "two"):
        await network.open(link, target=server.port)
    try:
        await globals()[claim](network, server)
    finally:
        await network.close()
        if relay:
            relay.kill()
            await relay.wait()


def main(kind: str, claim: str, folder: str) -> int:
    def run() -> int:
        asyncio.run(prove(kind, claim, folder))
        return 0

    return enclosed(run) if kind == "namespaces" else run()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
