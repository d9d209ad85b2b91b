"""Reads while the database is away go on, say how old they are, and end where they should."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest
from integration.apinode import API, USER, api, furnish, serving
from integration.nodes import eventually, run
from integration.replicas import replica_of
from links import Link

from engine_pg.clock import boottime
from engine_pg.db.database import Database
from engine_pg.errors import DatabaseAway


@asynccontextmanager
async def linked(url):
    """Yield a link to the database and the address behind it."""
    parts = urlsplit(url)
    link = Link(parts.port)
    try:
        yield (
            link,
            parts._replace(netloc=parts.netloc.replace(f":{parts.port}", f":{link.port}")).geturl(),
        )
    finally:
        await asyncio.to_thread(link.close)


async def becomes_fresh(node) -> None:
    async def is_fresh() -> bool:
        try:
            return (await node.reads.take()).stale_s is None
        except DatabaseAway:  # it has not read anything yet
            return False

    await eventually(is_fresh, 20)


def test_nobody_waits_for_a_database_that_has_been_silent_for_a_while(database_url):
    async def scenario():
        async with linked(database_url) as (link, url), replica_of(url, read_wait_s=30) as node:
            await becomes_fresh(node)
            link.freeze()
            waiting = asyncio.ensure_future(node.reads.take())
            await eventually(lambda: asyncio.sleep(0, node.replica.away))
            assert not waiting.done()  # nothing has failed yet
            assert (await asyncio.wait_for(node.reads.take(), 5)).stale_s is not None
            link.heal()
            assert (await waiting).stale_s is None

    run(scenario())


@pytest.mark.parametrize("how", ["cut", "freeze"])
def test_a_fresh_read_goes_on_and_its_age_grows(database_url, how):
    async def scenario():
        async with linked(database_url) as (link, url), replica_of(url, read_wait_s=0.3) as node:
            await becomes_fresh(node)
            getattr(link, how)()
            first = await node.reads.take()
            assert first.stale_s is not None
            assert first.view is node.replica.view
            later = boottime() + 0.3
            while boottime() < later:
                last = await node.reads.take()
            assert last.stale_s >= first.stale_s + 0.2
            link.heal()
            await becomes_fresh(node)

    run(scenario())


def test_a_cut_off_read_waits_for_nothing(database_url):
    async def scenario():
        async with linked(database_url) as (link, url), replica_of(url, read_wait_s=30) as node:
            await becomes_fresh(node)
            link.cut()

            async def is_away() -> bool:
                return node.replica.away

            await eventually(is_away)
            began_at = boottime()
            for _ in range(100):
                assert (await node.reads.take()).stale_s is not None
            assert boottime() - began_at < 1

    run(scenario())


@pytest.mark.parametrize(
    ("policy", "most_s", "then"),
    [("strict", 60, False), ("bounded", 60, True), ("bounded", 0.2, False)],
)
def test_a_policy_says_how_old_a_read_may_be(database_url, policy, most_s, then):
    async def scenario():
        async with (
            linked(database_url) as (link, url),
            replica_of(url, read_wait_s=0.3, read_policy=policy, read_staleness_s=most_s) as node,
        ):
            await becomes_fresh(node)
            link.cut()
            if then:
                assert (await node.reads.take()).stale_s is not None
                return

            async def is_refused() -> bool:
                try:
                    await node.reads.take()
                except DatabaseAway:
                    return True
                return False

            await eventually(is_refused)
            assert not node.reads.tolerable
            link.heal()

            async def is_answered() -> bool:
                return not await is_refused()

            await eventually(is_answered)

    run(scenario())


def test_a_write_never_rests_on_an_old_read(database_url):
    async def scenario():
        async with linked(database_url) as (link, url), replica_of(url, read_wait_s=0.3) as node:
            await becomes_fresh(node)
            link.cut()
            with pytest.raises(DatabaseAway):
                await node.reads.take(old_ok=False)

    run(scenario())


def test_before_the_first_copy_there_is_nothing_to_read(database_url):
    async def scenario():
        async with linked(database_url) as (link, url):
            link.cut()
            async with replica_of(url, read_wait_s=0.2) as node:
                with pytest.raises(DatabaseAway, match="not read the inventory yet"):
                    await node.reads.take()
                link.heal()

                async def is_there() -> bool:
                    return node.replica.view is not None

                await eventually(is_there)
                await becomes_fresh(node)

    run(scenario())


def test_the_api_answers_reads_with_their_age_and_refuses_writes(fresh_database_url):
    async def scenario():
        async with (
            api(fresh_database_url) as known,
            linked(fresh_database_url) as (link, url),
            Database(url, away_s=0.5) as db,
            serving(db) as node,
        ):
            await furnish(known)
            await becomes_fresh(node)
            node.client.headers["Authorization"] = known.client.headers["Authorization"]
            vms = await node.client.get(f"{API}/vms")
            assert "Engine-Staleness" not in vms.headers
            assert "Age" not in vms.headers
            link.cut()

            async def is_stale() -> bool:
                return "Engine-Staleness" in (await node.client.get(f"{API}/vms")).headers

            await eventually(is_stale)
            for path in ("/vms", "", "/events", "/jobs", "/users", "/hosts?search=name%3Dh1"):
                answer = await node.client.get(API + path)
                assert answer.status_code == 200, path
                assert float(answer.headers["Engine-Staleness"]) > 0
                assert int(answer.headers["Age"]) >= 0
            assert (await node.client.get(f"{API}/vms")).content == vms.content
            vm = (await node.get("/vms"))[0].get("id")
            for method, path in (("post", f"/vms/{vm}/start"), ("delete", f"/vms/{vm}")):
                refused = await node.client.request(method, API + path)
                assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
            assert node.commands.submissions == []
            stranger = await node.client.get(f"{API}/vms", headers={"Authorization": "Bearer x"})
            assert stranger.status_code == 503  # it may be one that was issued meanwhile
            lines = (await node.client.get("/metrics")).text.splitlines()
            assert "engine_node_replica_away 1" in lines
            assert any(line.startswith('engine_node_reads_total{how="stale"}') for line in lines)
            link.heal()

            async def is_fresh() -> bool:
                return not await is_stale()

            await eventually(is_fresh)
            assert USER in (await node.client.get(f"{API}/users")).text

    run(scenario())


def test_metrics_are_answered_while_the_database_is_frozen(fresh_database_url):
    async def scenario():
        async with (
            linked(fresh_database_url) as (link, url),
            Database(url) as db,
            serving(db, read_wait_s=0.3) as node,
        ):
            assert "engine_database_answers 1" in (await node.client.get("/metrics")).text
            link.freeze()
            began = boottime()
            lines = (await node.client.get("/metrics")).text.splitlines()
            assert boottime() < began + 2.0  # where a connection is waited for 3 s
            assert "engine_database_answers 0" in lines
            link.heal()

    run(scenario())
