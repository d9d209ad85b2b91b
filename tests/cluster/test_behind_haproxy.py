"""Nodes that are stopped and started again behind HAProxy, configured as deploy/ has it."""

from __future__ import annotations

import asyncio
import re
import shutil
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
from cluster.conftest import until

from engine_pg.demo.rest import Heard, element
from engine_pg.demo.state import free_ports
from engine_pg.ids import new_id

GIVEN = Path(__file__).resolve().parents[2] / "deploy/haproxy/haproxy.cfg"
HAPROXY = shutil.which("haproxy", path="/usr/local/bin:/usr/bin:/usr/sbin")
CLIENTS = 6
SERVER_ERRORS = 500
UP = r'haproxy_server_status\{proxy="writes",server="(\w+)",state="UP"\} 1'
WAITING = """
select count(*) from pg_locks where relation = 'data_center'::regclass and not granted
"""


def configuration(urls, api: int, health: int) -> str:
    """Return ours with other addresses: everything else is what is delivered."""
    text = GIVEN.read_text()
    for number, url in enumerate(urls, 1):
        text = text.replace(f"engine{number}:8080", urlsplit(url).netloc)
    text = text.replace("bind :8080", f"bind 127.0.0.1:{api}")
    text = text.replace("bind :8081", f"bind 127.0.0.1:{health}")
    text = re.sub(r"resolvers docker\n(  .*\n)+", "", text)
    text = text.replace(" resolvers docker", "")
    assert "docker" not in text
    assert "engine1:" not in text
    return text


class Haproxy:
    """HAProxy before some nodes."""

    def __init__(self, port: int, nodes: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._figures = f"http://127.0.0.1:{port + 1}/metrics"
        self._nodes = nodes

    async def up(self) -> list[str]:
        """Return the nodes that are sent writes."""
        try:
            async with httpx.AsyncClient(trust_env=False) as http:
                said = (await http.get(self._figures)).text
        except httpx.TransportError:
            return []
        return re.findall(UP, said)

    async def all_up(self) -> bool:
        return len(await self.up()) == self._nodes


@asynccontextmanager
async def haproxy(urls, folder):
    """Run HAProxy; yield it once it sends to all nodes."""
    assert HAPROXY is not None
    port = free_ports(2)
    file = folder / "haproxy.cfg"
    file.write_text(configuration(urls, port, port + 1))
    process = await asyncio.create_subprocess_exec(HAPROXY, "-db", "-q", "-f", file)
    try:
        proxy = Haproxy(port, len(urls))
        await until(proxy.all_up)
        yield proxy
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.skipif(HAPROXY is None, reason="needs haproxy")
@pytest.mark.parametrize("laboratory", ["all"], indirect=True)
def test_a_node_that_stops_fails_no_request_behind_haproxy(laboratory, tmp_path):
    heard: list[Heard] = []

    async def client(url: str, enough: asyncio.Event) -> None:
        """Write without a key, which the proxy may send only once."""
        async with laboratory.target.client(tell=heard.append) as rest:
            rest._urls = [url]
            while not enough.is_set():
                name = element("name", f"haproxy-{new_id()}")
                made = await rest.post(
                    "/datacenters", element("data_center", name, element("local", "false"))
                )
                await rest.delete(f"/datacenters/{made.get('id')}")

    async def story() -> None:
        enough = asyncio.Event()
        async with (
            haproxy(laboratory.stack.urls, tmp_path) as proxy,
            await psycopg.AsyncConnection.connect(laboratory.target.database_url) as connection,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(CLIENTS):
                group.create_task(client(proxy.url, enough))

            async def all_wait():
                return (await (await connection.execute(WAITING)).fetchone())[0] == CLIENTS

            async def left_out():
                return "engine1" not in await proxy.up()

            await connection.execute("lock table data_center in share row exclusive mode")
            await until(all_wait)  # some of them at the node that is told to stop
            stopping = group.create_task(laboratory.stack.processes["node-1"].stop())
            await until(left_out)
            await connection.rollback()
            await stopping
            await laboratory.stack.start("node-1")
            await until(proxy.all_up)
            enough.set()

    laboratory.run(story())
    assert [each for each in heard if each.status == 0 or each.status >= SERVER_ERRORS] == []
    assert len(heard) > CLIENTS
