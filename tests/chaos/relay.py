"""Links between processes and PostgreSQL, in user space: they can be cut, slowed and made lossy.

Each link listens on a port of its own and leads to the server that it is routed to; connections
that were opened before a new routing stay where they are. A cut holds back what is sent, an end
of the connection included, as packets that find no way would; healing either delivers it late or
resets the connections. A loss costs what a retransmission costs: time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import uvloop

from chaos.network import Harm
from engine_pg.errors import Invalid

RETRANSMISSION_S = 0.2


@dataclass(slots=True)
class Way:
    """One direction of a link."""

    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    passable: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.passable.set()

    def hurt(self, *, cut: bool = False, delay_s=0.0, jitter_s=0.0, loss=0.0) -> None:
        self.delay_s, self.jitter_s, self.loss = delay_s, jitter_s, loss
        if cut:
            self.passable.clear()
        else:
            self.passable.set()

    async def passage(self, dice: random.Random) -> None:
        """Return when what waits may pass."""
        while not self.passable.is_set():
            await self.passable.wait()
        delay_s = self.delay_s + dice.uniform(0, self.jitter_s)
        pause_s = RETRANSMISSION_S
        while self.loss and dice.random() < self.loss:
            delay_s += pause_s
            pause_s *= 2
        if delay_s:
            await asyncio.sleep(delay_s)
        while not self.passable.is_set():
            await self.passable.wait()


class Link:
    """One client's way to the database."""

    def __init__(self, target: int, seed: str) -> None:
        self.target = target
        self.ways = {"up": Way(), "down": Way()}
        self._dice = random.Random(seed)
        self._open: set[asyncio.StreamWriter] = set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection until both ends are closed."""
        self._open.add(writer)
        beyond: asyncio.StreamWriter | None = None
        try:
            await self.ways["up"].passage(self._dice)
            source, beyond = await asyncio.open_connection("127.0.0.1", self.target)
            self._open.add(beyond)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, beyond, self.ways["up"]))
                group.create_task(self._pump(source, writer, self.ways["down"]))
        except* OSError:
            pass  # refused, or reset: the other end gets a reset as well
        finally:
            for each in (writer, beyond):
                if each is not None:
                    self._open.discard(each)
                    each.transport.abort()

    def obey(self, verb: str, **more: Any) -> None:
        """Be routed elsewhere, hurt, healed or reset."""
        if verb == "route":
            self.target = more["target"]
        elif verb == "hurt":
            for way in more.pop("ways"):
                self.ways[way].hurt(**more)
        if verb == "reset" or more.get("reset"):
            self._reset()
        if verb == "heal":
            for way in self.ways.values():
                way.hurt()

    def _reset(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way
    ) -> None:
        while data := await reader.read(65536):
            await way.passage(self._dice)
            writer.write(data)
            await writer.drain()
        await way.passage(self._dice)
        raise ConnectionResetError  # one end closed: so does the other


class Relay:
    """All links, told what to do over a control socket, one JSON object per line."""

    def __init__(self) -> None:
        self._links: dict[str, Link] = {}

    async def serve(self, path: str) -> None:
        server = await asyncio.start_unix_server(self._control, path)
        await server.serve_forever()

    async def _control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            answer = await self._obey(**json.loads(line))
            writer.write(json.dumps(answer).encode() + b"\n")
        writer.close()

    async def _obey(self, verb: str, link: str, **more: Any) -> dict[str, Any]:
        if verb == "open":
            made = self._links[link] = Link(more["target"], f"{more['seed']}/{link}")
            server = await asyncio.start_server(made.accept, "127.0.0.1", 0)
            return {"port": server.sockets[0].getsockname()[1]}
        self._links[link].obey(verb, **more)
        return {}


class Relays:
    """The network of a machine that permits no other: tells the relay's process what to do."""

    mechanism = (
        "Links are TCP relays in user space, one for each process: a cut"
        " holds back both directions or one and delivers late or resets; a loss costs what a"
        " retransmission does."
    )
    whole_machines = False

    def __init__(self, path: str, seed: int) -> None:
        self._path = path
        self._seed = seed
        self._ports: dict[str, int] = {}
        self._lock = asyncio.Lock()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def open(self, link: str, *, target: int, listens: int = 0) -> None:  # noqa: ARG002 - found without us
        """Make a link to a port of this machine; its process may listen on a port for others."""
        answer = await self._tell("open", link, target=target, seed=self._seed)
        self._ports[link] = answer["port"]

    def address(self, link: str) -> tuple[str, int]:
        """Return where the process of a link finds the database."""
        return "127.0.0.1", self._ports[link]

    def inside(self, link: str, command: Sequence[str]) -> list[str]:  # noqa: ARG002 - all are here
        """Return a command as it is to be run by whoever uses the link."""
        return list(command)

    async def route(self, link: str, target: int) -> None:
        """Lead new connections to another port."""
        await self._tell("route", link, target=target)

    async def hurt(self, link: str, harm: Harm) -> None:
        """Let a harm begin, instead of any other."""
        told = asdict(harm)
        if told.pop("everybody"):
            raise Invalid("a relay leads to the database alone")
        await self._tell("hurt", link, **told)

    async def heal(self, link: str, *, reset: bool = False) -> None:
        """Make a link whole; what was held back arrives late, or its connections are reset."""
        await self._tell("heal", link, reset=reset)

    async def close(self) -> None:
        """Stop telling; the relay's process is its starter's to stop."""
        if self._streams is not None:
            self._streams[1].close()

    async def _tell(self, verb: str, link: str, **more: Any) -> dict[str, Any]:
        async with self._lock:
            if self._streams is None:
                self._streams = await asyncio.open_unix_connection(self._path)
            reader, writer = self._streams
            writer.write(json.dumps({"verb": verb, "link": link} | more).encode() + b"\n")
            return json.loads(await reader.readline())


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(Relay().serve(sys.argv[1]))
