"""How a node's server parts from its clients."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

from integration.nodes import eventually, run
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from engine_pg.api.server import server_of
from engine_pg.demo.state import free_ports
from engine_pg.settings import Settings

ASK = b"GET / HTTP/1.1\r\nHost: node\r\n\r\n"


async def hello(_):
    return PlainTextResponse("hello")


@asynccontextmanager
async def served():
    port = free_ports(1)
    known = Settings(database_url="postgresql://nobody", listen_port=port)
    server = server_of(Starlette(routes=[Route("/", hello)]), known)
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve())
        await eventually(lambda: asyncio.sleep(0, server.started))
        yield server, port
        server.should_exit = True


async def answer_of(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    assert await reader.readexactly(5) == b"hello"
    return head.lower()


def test_a_request_on_an_idle_connection_is_answered_while_the_server_stops(monkeypatch):
    monkeypatch.setattr("engine_pg.api.server._PARTING_S", 10.0)

    async def story():
        async with served() as (server, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(ASK)
            assert b"connection: close" not in await answer_of(reader)
            server.should_exit = True

            async def refuses() -> bool:
                try:
                    _, other = await asyncio.open_connection("127.0.0.1", port)
                except ConnectionRefusedError:
                    return True
                other.close()
                return False

            await eventually(refuses)
            writer.write(ASK)
            assert b"connection: close" in await answer_of(reader)
            assert await reader.read() == b""
            writer.close()

    run(story(), 8)
