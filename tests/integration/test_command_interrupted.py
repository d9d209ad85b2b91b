"""Commands that meet the locks of others which a lost database, or a lost node, holds up."""

from __future__ import annotations

import asyncio

import pytest
from integration.engines import engine, simulated
from integration.nodes import run

STANDS = "select 1 from lock_grant where kind = 'vm' and id = %(vm)s"


@pytest.fixture(scope="module")
def hosts():
    with simulated("all") as made:
        yield made


def test_who_meets_the_lock_of_a_command_that_is_over_waits_until_it_is_released(
    database_url, hosts
):
    """The database may be away between a command's end and the release of its locks."""

    async def story():
        async with engine(database_url, "a") as a, engine(database_url, "b") as b:
            cluster, _ = await a.furnish(hosts)
            vm = await a.vm(cluster)
            kept = []
            claims = a.node.membership.claims
            finish, claims.finish = claims.finish, kept.append
            assert (await a.do("start_vm", vm)).state == "succeeded"
            assert await b.node.rows(STANDS, vm=str(vm))
            stopping = asyncio.ensure_future(b.do("stop_vm", vm))
            await asyncio.sleep(0.5)
            assert not stopping.done(), (await stopping).error
            finish(kept[0])
            assert (await stopping).state == "succeeded"

    run(story())
