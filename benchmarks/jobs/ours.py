"""Our commands: submitted as the API does, run by members as a node does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from benchmarks.jobs.contender import CONCURRENCY, Began, Client, Contender, Order
from engine_pg.cluster.fence import FencedTx
from engine_pg.cluster.membership import Lease, Membership
from engine_pg.cluster.ops import Identity
from engine_pg.cluster.topics import CHANGES
from engine_pg.commands.definition import Definition, WriteStep
from engine_pg.commands.rows import Submission
from engine_pg.commands.run import Run
from engine_pg.commands.runner import Runner
from engine_pg.commands.service import Commands
from engine_pg.db.database import Database
from engine_pg.db.listener import Doorbells
from engine_pg.db.tx import Record
from engine_pg.hosts.connections import HostConnections
from engine_pg.hosts.driver import HostDriver
from engine_pg.hosts.vdsm.client import VdsmDriver
from engine_pg.ids import new_id
from engine_pg.singletons import adoption
from engine_pg.supervisor import Background
from engine_pg.worker import work

REMAINING: Final = "select count(*)::integer as many from command where ended_at is null"
_NAME: Final = "benchmark"


def _definition(began: Began) -> Definition:
    async def prepare(run: Run) -> None:
        began(run.params["number"])
        if run.params["hold_s"]:
            await asyncio.sleep(run.params["hold_s"])

    async def write(_run: Run, _tx: FencedTx) -> Record:
        return {}

    return Definition(
        name=_NAME,
        subject_kind="benchmark",
        describe=lambda _params: "Doing nothing",
        locks=lambda _command: (),
        steps=(WriteStep(name="nothing", title="Nothing", write=write, prepare=prepare),),
        event=lambda _run, _error: None,
    )


class OurClient:
    """The service that the API submits through."""

    def __init__(self, db: Database, commands: Commands) -> None:
        self._db = db
        self._commands = commands

    async def submit(self, order: Order) -> None:
        """Submit a command: its row and its job are one commit."""
        params = {"number": order.number, "hold_s": order.hold_s}
        await self._commands.submit(Submission(name=_NAME, subject_id=new_id(), params=params))

    async def remaining(self) -> int:
        """Count what has not ended."""
        return (await self._db.once(REMAINING))[0]["many"]


@asynccontextmanager
async def _open(url: str) -> AsyncGenerator[Client]:
    bells = Doorbells(url)
    registry = {_NAME: _definition(lambda _number: None)}
    async with _database(url, "client", bells) as db, Background() as background:
        background.start(bells.run(), name="doorbells")
        yield OurClient(db, Commands(db, bells, registry))


def _no_host(address: str, port: int) -> HostDriver:
    return VdsmDriver(address, port)


def _database(url: str, name: str, bells: Doorbells) -> Database:
    """Return a database as a node has it: what changed is told after the commit."""
    return Database(url, name=name, pool_max=12, on_commit=lambda: bells.ring_soon(CHANGES))


async def _work(url: str, name: str, began: Began) -> None:
    await serve(url, name, {_NAME: _definition(began)})


async def serve(
    url: str, name: str, registry: Mapping[str, Definition], lease: Lease = Lease()
) -> None:
    """Be a member that runs commands, as a node is, until it ends."""
    bells = Doorbells(url)
    async with (
        HostConnections(_no_host) as hosts,
        _database(url, name, bells) as db,
        Background() as background,
    ):
        one = Membership(db, Identity(new_id(), name), bells=bells, lease=lease)
        one.leaders.register(adoption.NAME, adoption.Adoption(one.fencing, bells).run)
        await one.join()
        background.start(bells.run(), name="doorbells")
        background.start(one.run(), name="member")
        runner = Runner(one, db, hosts, bells, registry)
        await work(db, one, runner, bells, concurrency=CONCURRENCY, urgent_concurrency=1)


async def _prepare(_url: str) -> None:
    """Do nothing: the database is migrated."""


OURS: Final = Contender(
    "ours",
    what="engine_pg: a durable command with one step, run by members with the default lease of 5 s",
    recovers="another member, once the lease has run out",
    prepare=_prepare,
    open=_open,
    work=_work,
)
