"""A whole node through a failover that leaves the old primary running: all of it must follow."""

from __future__ import annotations

import asyncio

import httpx
from apinode import API, FAST, PASSWORD, TOKEN, USER
from integration.nodes import eventually
from integration.streams import node_process, run

from engine_pg.api.accounts import users
from engine_pg.api.accounts.passwords import Passwords
from engine_pg.db.database import Database

SOON_S = 10.0


async def logged_in(client: httpx.AsyncClient) -> None:
    form = {"grant_type": "password", "scope": "ovirt-app-api"}
    answer = await client.post(TOKEN, data=form | {"username": USER, "password": PASSWORD})
    client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"


async def created(client: httpx.AsyncClient, name: str) -> bool:
    """Ask for a data center, which a worker makes; its answer tells that it has."""
    body = f"<data_center><name>{name}</name><local>false</local></data_center>"
    xml = {"Content-Type": "application/xml"}
    answer = await client.post(f"{API}/datacenters", content=body, headers=xml)
    return answer.status_code == 201


def test_a_node_goes_on_making_things_after_a_failover_that_leaves_the_old_primary_running(
    replicated,
):
    async def story():
        async with Database(replicated.url) as db, db.write() as tx:
            await users.add(tx, USER, await Passwords(FAST).hash(PASSWORD))
        async with (
            node_process(replicated.url, "a") as node,
            httpx.AsyncClient(base_url=node.url, timeout=SOON_S, trust_env=False) as client,
        ):
            await logged_in(client)
            assert await created(client, "before")
            await asyncio.to_thread(replicated.pair.promote)
            for number in range(3):  # whichever connection of the node serves it
                names = (f"after-{number}-{attempt}" for attempt in range(1000))
                await eventually(lambda names=names: created(client, next(names)), SOON_S)

    run(story())
