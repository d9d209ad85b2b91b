"""A node that has just come up copies the inventory first, and then looks after hosts."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from integration.nodes import eventually, run

from engine_pg.api.replicated import TABLES
from engine_pg.cluster.feed import Feed
from engine_pg.cluster.fence import Fencing
from engine_pg.cluster.leaders import Leadership
from engine_pg.commands.registry import REGISTRY
from engine_pg.commands.service import Commands
from engine_pg.configuration.live import LiveSettings
from engine_pg.db.database import Database
from engine_pg.db.listener import Doorbells
from engine_pg.hosts.connections import HostConnections
from engine_pg.hosts.vdsm.client import VdsmDriver
from engine_pg.replica.replica import Replica
from engine_pg.singletons import monitor
from engine_pg.supervisor import Background

PARTITIONS = 3


class Trusted:
    """A session whose member lives."""

    async def until_trusted(self):
        pass


@asynccontextmanager
async def monitoring(db, bells, copied):
    """Yield what some partitions of one node do, until the block ends."""
    session = Trusted()
    parts = Fencing(db, session), HostConnections(VdsmDriver), Commands(db, bells, REGISTRY)
    watching = monitor.Monitor(db, *parts, LiveSettings(), copied)
    async with Background() as background:
        for number in range(PARTITIONS):
            name = monitor.partition_name(number)
            background.start(watching.run(Leadership(name, 1, session)), name=name)
        yield watching, background


def has_looked(watching):
    async def looked() -> bool:
        return watching._roster.looks > 0

    return looked


@pytest.fixture
def parts(fresh_database_url):
    bells = Doorbells(fresh_database_url)
    return Database(fresh_database_url, pool_max=4), bells


def test_no_host_is_looked_at_before_the_inventory_is_copied(parts):
    database, bells = parts
    begun, views = [], []

    async def story():
        async with database as db:
            replica = Replica(Feed(db, bells), bells, TABLES)

            async def copied():
                begun.append(True)
                await replica.copied()
                views.append(replica.view)

            async def all_begun():
                return len(begun) == PARTITIONS

            async with monitoring(db, bells, copied) as (watching, background):
                await eventually(all_begun)
                assert watching._roster.looks == 0
                background.start(replica.run(), name="replica")
                await eventually(has_looked(watching))
        assert None not in views

    run(story())


def test_hosts_are_looked_after_when_the_inventory_cannot_be_copied(parts, monkeypatch):
    monkeypatch.setattr(monitor, "_COPY_S", 0.05)
    database, bells = parts

    async def story():
        copied = asyncio.Event().wait
        async with database as db, monitoring(db, bells, copied) as (watching, _):
            await eventually(has_looked(watching))

    run(story())
