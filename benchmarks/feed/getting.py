"""Clients that ask for the same thing again and again, each over a connection of its own."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from engine_pg.clock import boottime


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked for."""

    port: int
    path: str
    token: str

    @property
    def request(self) -> bytes:
        """The request, word for word."""
        lines = (
            f"GET {self.path} HTTP/1.1",
            f"Host: 127.0.0.1:{self.port}",
            f"Authorization: Bearer {self.token}",
            "Accept: application/xml",
        )
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


class Client:
    """One connection that is kept."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connected(cls, target: Target) -> Client:
        """Return a client of a target."""
        return cls(*await asyncio.open_connection("127.0.0.1", target.port, limit=1 << 20))

    async def get(self, target: Target) -> bytes:
        """Ask once, and return the answer's body."""
        self._writer.write(target.request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1.1 200"):
            raise RuntimeError(head.decode())
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        return await self._reader.readexactly(length)

    def close(self) -> None:
        """Leave."""
        self._writer.close()


async def rate(target: Target, clients: int, seconds: float) -> float:
    """Return how many answers a second so many clients get."""
    answers = 0
    until = boottime() + seconds

    async def ask() -> None:
        nonlocal answers
        client = await Client.connected(target)
        while boottime() < until:
            await client.get(target)
            answers += 1
        client.close()

    began_at = boottime()
    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(ask())
    return answers / (boottime() - began_at)
