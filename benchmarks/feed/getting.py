"""Clients that ask for the same thing again and again, each over a connection of its own."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from engine_pg.clock import boottime

_AGAIN_S: Final = 0.1


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


class Refused(RuntimeError):
    """The server has no answer now, and says when to ask again."""


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
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        body = await self._reader.readexactly(length)
        if head.startswith(b"http/1.1 503"):
            raise Refused(body.decode())
        if not head.startswith(b"http/1.1 200"):
            raise RuntimeError(head.decode())
        return body

    def close(self) -> None:
        """Leave."""
        self._writer.close()


async def rate(target: Target, clients: int, seconds: float) -> tuple[float, int]:
    """Return how many answers a second so many clients get, and how often one was refused."""
    answers = refused = 0
    until = boottime() + seconds

    async def ask() -> None:
        nonlocal answers, refused
        client = await Client.connected(target)
        goes_on = True
        while goes_on:
            try:
                await client.get(target)
            except Refused:
                refused += 1
                await asyncio.sleep(_AGAIN_S)
            else:
                answers += 1
            goes_on = boottime() < until
        client.close()

    began_at = boottime()
    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(ask())
    return answers / (boottime() - began_at), refused
