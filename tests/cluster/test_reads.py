"""A node whose database goes away serves reads on, says so to its load balancer, and comes back."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from http import HTTPStatus

import httpx
from integration.apinode import API, FAST, PASSWORD, TOKEN, USER
from integration.nodes import eventually, run
from integration.test_reads_without_database import linked

from engine_pg.api.accounts import users
from engine_pg.api.accounts.passwords import Passwords
from engine_pg.db.database import Database
from engine_pg.demo.state import free_ports
from engine_pg.settings import PREFIX


@asynccontextmanager
async def serving(url: str, **settings: str) -> AsyncGenerator[httpx.AsyncClient]:
    """Start a node's process; yield a client of it."""
    port = free_ports(1)
    told = {
        "DATABASE_URL": url,
        "LISTEN_PORT": str(port),
        "LEASE_TTL_S": "2",
        "LOG_LEVEL": "warning",
        **settings,
    }
    env = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "engine_pg", "serve"),
        env=env | {f"{PREFIX}{name}": value for name, value in told.items()},
    )
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=20
        ) as client:
            yield client
    finally:
        process.terminate()
        await process.wait()


def test_a_node_without_its_database_is_degraded_and_comes_back(fresh_database_url):
    async def scenario():
        async with linked(fresh_database_url) as (link, url), serving(url) as node:

            async def says(status: HTTPStatus, word: str) -> bool:
                try:
                    answer = await node.get("/readyz")
                except httpx.TransportError:
                    return False
                return (answer.status_code, answer.json()["status"]) == (status, word)

            async def is_ready() -> bool:
                return await says(HTTPStatus.OK, "ready")

            async def is_degraded() -> bool:
                return await says(HTTPStatus.OK, "degraded")

            async with Database(fresh_database_url) as db, db.write() as tx:
                await users.add(tx, USER, await Passwords(FAST).hash(PASSWORD))
            await eventually(is_ready, 40)
            form = {"grant_type": "password", "username": USER, "password": PASSWORD}
            token = (await node.post(TOKEN, data=form)).json()["access_token"]
            node.headers["Authorization"] = f"Bearer {token}"
            assert "Engine-Staleness" not in (await node.get(f"{API}/vms")).headers
            await asyncio.to_thread(link.cut)
            await eventually(is_degraded, 20)
            assert "no writable PostgreSQL answers" in (await node.get("/readyz")).text
            answer = await node.get(f"{API}/vms")
            assert (answer.status_code, "Engine-Staleness" in answer.headers) == (200, True)
            refused = await node.post(f"{API}/datacenters", json={"name": "d"})
            assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
            await asyncio.to_thread(link.heal)
            await eventually(is_ready, 20)
            assert "Engine-Staleness" not in (await node.get(f"{API}/vms")).headers

    run(scenario(), 110)
