"""All nodes restarted one after the other, drained first, under load behind a load balancer."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from http import HTTPStatus

import httpx
import pytest
from cluster.conftest import BOUND_S, until

from engine_pg.clock import boottime
from engine_pg.cluster import orders
from engine_pg.db.database import Database
from engine_pg.demo.rest import Heard, element
from engine_pg.errors import Conflict
from engine_pg.ids import new_id

PROBE_S = 0.1
CLIENTS = 4
MOST_MOVES = 2
RUNS = """
select count(*) as count from command c join member m using (member_id)
 where m.node = %(node)s and c.ended_at is null
"""


class Balancer:
    """Sends each request to one of the nodes that are ready, and never a second time."""

    def __init__(self, urls) -> None:
        self.ready: list[str] = []
        self.sent = 0
        self.failed: list[Heard] = []
        self._urls = list(urls)

    async def probe(self) -> None:
        """Ask every node whether it is ready, as a load balancer does."""
        async with httpx.AsyncClient(trust_env=False, timeout=2.0) as http:
            while True:
                self.ready = [url for url in self._urls if await self._is_ready(http, url)]
                await asyncio.sleep(PROBE_S)

    async def _is_ready(self, http, url) -> bool:
        try:
            return (await http.get(f"{url}/readyz")).status_code == HTTPStatus.OK
        except httpx.TransportError:
            return False

    def choose(self) -> str:
        self.sent += 1
        return self.ready[self.sent % len(self.ready)]

    def hear(self, heard: Heard) -> None:
        if heard.status == 0 or heard.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self.failed.append(heard)


@asynccontextmanager
async def under_load(laboratory) -> AsyncGenerator[Balancer]:
    """Read and write through the balancer, all the time."""
    balancer = Balancer(laboratory.stack.urls)
    enough = asyncio.Event()

    async def client(number: int) -> None:
        async with laboratory.target.client(tell=balancer.hear) as rest:
            while not enough.is_set():
                rest._urls = [balancer.choose()]
                await rest.get("/vms")
                name = f"rolling-{number}-{new_id()}"
                rest._urls = [balancer.choose()]
                dc = element("data_center", element("name", name), element("local", "false"))
                made = await rest.post("/datacenters", dc, key=str(new_id()))
                rest._urls = [balancer.choose()]
                await rest.delete(f"/datacenters/{made.get('id')}", key=str(new_id()))

    async with asyncio.TaskGroup() as group:
        probing = group.create_task(balancer.probe())

        async def all_ready():
            return len(balancer.ready) == len(laboratory.stack.urls)

        await until(all_ready)
        for number in range(CLIENTS):
            group.create_task(client(number))
        yield balancer
        enough.set()
        probing.cancel()


async def command_line(laboratory, *words: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "engine_pg", *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"ENGINE_DATABASE_URL": laboratory.target.database_url, "PATH": "/usr/bin:/bin"},
    )
    said, _ = await process.communicate()
    return process.returncode, said.decode()


async def terms(db) -> dict[str, int]:
    return {leader.name: leader.term for leader in (await orders.picture(db)).leaders}


async def settled(db) -> bool:
    return not (await orders.picture(db)).unsettled


async def emptied(laboratory, balancer, node: str, db) -> None:
    """Drain a node as an operator does, and see it empty and out of the balancer's list."""
    status, said = await command_line(laboratory, "drain", node)
    assert status == 0, said
    assert said.endswith(f"{node} is empty\n"), said
    assert (await orders.picture(db)).led_by(node) == []
    async with db.read() as tx:
        assert (await tx.first(RUNS, {"node": node}))["count"] == 0
    url = laboratory.stack.urls[int(node[-1]) - 1]
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.get(f"{url}/readyz")
    assert (answer.status_code, answer.json()["reasons"]) == (503, ["draining"])

    async def out():
        return url not in balancer.ready

    await until(out)


@pytest.mark.parametrize("laboratory", ["all"], indirect=True)
@pytest.mark.timeout(240)
def test_a_rolling_restart_fails_no_request_and_moves_each_leadership_at_most_twice(laboratory):
    async def story():
        async with Database(laboratory.target.database_url, name="test") as db:
            await until(lambda: settled(db))
            before = await terms(db)
            async with under_load(laboratory) as balancer:
                for node in ("node-1", "node-2", "node-3"):
                    sent = balancer.sent
                    await emptied(laboratory, balancer, node, db)
                    await laboratory.stack.processes[node].stop()
                    await laboratory.stack.start(node)
                    assert balancer.sent > sent
                await until(lambda: settled(db))
            moves = {name: term - before[name] for name, term in (await terms(db)).items()}
            assert balancer.failed == []
            assert balancer.sent > 3 * CLIENTS
            assert max(moves.values()) <= MOST_MOVES, moves
            assert len(moves) > 64

    started = boottime()
    laboratory.run(story())
    assert boottime() - started < 3 * BOUND_S


@pytest.mark.parametrize("laboratory", ["all"], indirect=True)
def test_an_order_to_drain_can_be_undone_and_the_last_node_is_refused(laboratory):
    async def story():
        async with Database(laboratory.target.database_url, name="test") as db:
            for node in ("node-1", "node-2"):
                status, said = await command_line(laboratory, "drain", node, "--no-wait")
                assert status == 0, said
            status, said = await command_line(laboratory, "drain", "node-3", "--no-wait")
            assert status == 1
            assert "nobody could take its place" in said
            with pytest.raises(Conflict):
                await orders.drain(db, "node-3")
            for node in ("node-1", "node-2"):
                status, said = await command_line(laboratory, "drain", node, "--undo")
                assert (status, said) == (0, f"{node} takes work again\n")
            await until(lambda: settled(db))
            await laboratory.target.until_whole()

    laboratory.run(story())
