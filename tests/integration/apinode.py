"""The API of one node in this process, on a real database; commands are recorded, not run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx
from argon2 import PasswordHasher
from defusedxml import ElementTree
from psycopg.types.json import Jsonb

from engine_pg.api.accounts import users
from engine_pg.api.accounts.passwords import Passwords
from engine_pg.api.app import create_app
from engine_pg.api.changes.tail import Tail
from engine_pg.api.replicated import TABLES
from engine_pg.api.services import Services
from engine_pg.cluster.feed import Feed
from engine_pg.commands import store
from engine_pg.commands.rows import CommandView, Submission
from engine_pg.configuration.live import LiveSettings
from engine_pg.db.database import Database
from engine_pg.db.listener import Doorbells
from engine_pg.ids import new_id
from engine_pg.inventory.numbering import Numbering
from engine_pg.replica.reading import Reads
from engine_pg.replica.replica import Replica
from engine_pg.supervisor import Background

API = "/ovirt-engine/api"
TOKEN = "/ovirt-engine/sso/oauth/token"
LOGOUT = "/ovirt-engine/services/sso-logout"
USER, PASSWORD = "admin@internal", "correct horse"
FAST = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)

END = """
update command set state = %(state)s, accepted_at = now(), started_at = now(),
       ended_at = case when %(state)s in ('queued', 'running') then null else now() end
 where command_id = %(command_id)s
"""


@dataclass
class RecordedCommands:
    """Stores each command as the engine does; `effect` is what it does, `state` how it ends."""

    db: Database
    submissions: list[Submission] = field(default_factory=list)
    awaited: list[tuple[str, float]] = field(default_factory=list)
    state: str = "succeeded"
    effect: Callable[[Any, Submission], Awaitable[None]] | None = None
    raising: Exception | None = None

    async def perform(
        self, submission: Submission, *, until: str = "final", bound_s: float = 20.0
    ) -> CommandView:
        known = {known.command_id for known in self.submissions}
        self.submissions.append(submission)
        self.awaited.append((until, bound_s))
        if self.raising:
            raise self.raising
        async with self.db.write() as tx:
            await store.submit(
                tx, store.written(submission, description=submission.name, subject_kind="vm")
            )
            if submission.command_id not in known and self.effect:
                await self.effect(tx, submission)
            await tx.run(END, {"state": self.state, "command_id": submission.command_id})
            return await store.view(tx, submission.command_id)


@dataclass
class Api:
    """A client of the node, and what stands behind it."""

    client: httpx.AsyncClient
    db: Database
    commands: RecordedCommands
    reasons: list[str]
    reads: Reads | None = None

    async def login(self, name: str = USER, password: str = PASSWORD) -> httpx.Response:
        form = {"grant_type": "password", "scope": "ovirt-app-api"}
        return await self.client.post(TOKEN, data=form | {"username": name, "password": password})

    async def get(self, path: str, **params: Any) -> ElementTree:
        answer = await self.client.get(API + path, params=params)
        assert answer.status_code == 200, answer.text
        return ElementTree.fromstring(answer.content)

    async def names(self, path: str, **params: Any) -> list[str]:
        return [element.findtext("name") for element in await self.get(path, **params)]

    async def run(self, query: str, **params: Any) -> None:
        async with self.db.write() as tx:
            await tx.run(query, params)


@asynccontextmanager
async def serving(
    db: Database, *, wired: Mapping[str, Any] | None = None, **settings: Any
) -> AsyncGenerator[Api]:
    """Serve a database; the client has not logged in. `wired`: more services."""
    commands, reasons = RecordedCommands(db), []
    bells = Doorbells(db.url)
    replica = Replica(Feed(db, bells), bells, TABLES)
    live = LiveSettings.of(**settings)
    services = Services(
        db=db,
        commands=commands,
        settings=live,
        tail=Tail(Feed(db, bells)),
        reads=Reads(replica, live),
        numbering=Numbering(db, bells),
        passwords=Passwords(FAST),
        ready=lambda: reasons,
        **(wired or {}),
    )
    transport = httpx.ASGITransport(create_app(services))
    async with (
        Background() as background,
        httpx.AsyncClient(transport=transport, base_url="http://node") as client,
    ):
        background.start(replica.run(), name="replica")
        yield Api(client, db, commands, reasons, services.reads)


@asynccontextmanager
async def api(url: str, **settings: Any) -> AsyncGenerator[Api]:
    """Serve a database; the client is logged in as the administrator."""
    async with Database(url) as db, serving(db, **settings) as node:
        async with db.write() as tx:
            await users.add(tx, USER, await Passwords(FAST).hash(PASSWORD))
        token = (await node.login()).json()["access_token"]
        node.client.headers["Authorization"] = f"Bearer {token}"
        yield node


def run(url: str, scenario: Callable[[Api], Awaitable[None]], **settings: Any) -> None:
    """Run a scenario against the API on a database."""

    async def inside() -> None:
        async with api(url, **settings) as node:
            await scenario(node)

    asyncio.run(inside())


@dataclass
class Furniture:
    """Ids of a few rows in a fresh database."""

    dc: UUID = field(default_factory=new_id)
    cluster: UUID = field(default_factory=new_id)
    host: UUID = field(default_factory=new_id)
    vms: list[UUID] = field(default_factory=lambda: [new_id() for _ in range(3)])


async def furnish(node: Api, prefix: str = "") -> Furniture:
    """Insert a data center, a cluster, a host and three VMs, of which the first runs."""
    made = Furniture()
    async with node.db.write() as tx:
        names = {"dc": f"{prefix}dc1", "cluster": f"{prefix}c1", "host": f"{prefix}h1"}
        await tx.run(
            "insert into data_center (data_center_id, name) values (%(id)s, %(name)s)",
            {"id": made.dc, "name": names["dc"]},
        )
        await tx.run(
            "insert into cluster (cluster_id, data_center_id, name) values (%(id)s, %(dc)s, %(n)s)",
            {"id": made.cluster, "dc": made.dc, "n": names["cluster"]},
        )
        await tx.run(
            "insert into host (host_id, cluster_id, name, address, status, memory_bytes, cpu_cores,"
            " cpu_sockets, cpu_threads) values (%(id)s, %(c)s, %(n)s, %(n)s, 'up', %(m)s, 4, 2, 1)",
            {"id": made.host, "c": made.cluster, "n": names["host"], "m": 16 << 30},
        )
        await tx.run(
            "insert into host_statistics (host_id, cpu_percent, memory_free_bytes, vm_active)"
            " values (%(id)s, 12.5, %(free)s, 1)",
            {"id": made.host, "free": 6 << 30},
        )
        for number, id_ in enumerate(made.vms, 1):
            await tx.run(
                "insert into vm (vm_id, cluster_id, template_id, name, memory_bytes, status,"
                " host_id, attrs) values (%(id)s, %(c)s, %(t)s, %(n)s, %(m)s, %(s)s, %(h)s, %(a)s)",
                {
                    "id": id_,
                    "c": made.cluster,
                    "t": UUID(int=0),
                    "n": f"{prefix}vm{number}",
                    "m": number << 30,
                    "s": "powering_up" if number == 1 else "down",
                    "h": made.host if number == 1 else None,
                    "a": Jsonb({"delete_protected": True} if number == 2 else {}),
                },
            )
    return made
