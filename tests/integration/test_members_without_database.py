"""Members, leaders, status, settings: exact with the database, and told without it, with an age."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest
from apinode import Api, api, furnish, serving
from integration.nodes import eventually, run
from integration.nodes import node as member
from integration.test_reads_without_database import linked
from links import Link

from engine_pg.commands import shown
from engine_pg.db.database import Database

PINNED = "update leader set pinned_node = 'a' where name = 'two'"
LED = "select from leader having count(member_id) = 2"
NAMES = ("members", "leaders", "status")
VITALS = ("renewal", "age_s", "locks", "waiting")


async def idle(_leadership) -> None:
    await asyncio.Event().wait()


@dataclass
class Cut:
    """A node's API, and what lies between it and the database; `known` has another way."""

    known: Api
    node: Api
    link: Link

    async def get(self, name: str) -> httpx.Response:
        return await self.node.client.get(f"/api/v1/{name}")

    async def all_three(self, *, stale: bool) -> tuple[list, list, dict]:
        answers = [await self.get(name) for name in NAMES]
        assert [each.status_code for each in answers] == [200] * 3
        assert ["Engine-Staleness" in each.headers for each in answers] == [stale] * 3
        members, leaders, status = (each.json() for each in answers)
        assert (status["stale_s"] is not None) == stale
        return members["members"], leaders["leaders"], status

    async def becomes(self, *, stale: bool) -> None:
        async def is_so() -> bool:
            return ("Engine-Staleness" in (await self.get("leaders")).headers) == stale

        await eventually(is_so)


@asynccontextmanager
async def to_be_cut(url: str, **settings):
    async with AsyncExitStack() as stack:
        known = await stack.enter_async_context(api(url))
        link, linked_url = await stack.enter_async_context(linked(url))
        db = await stack.enter_async_context(Database(linked_url, away_s=0.2))
        node = await stack.enter_async_context(serving(db, **settings))
        node.client.headers["Authorization"] = known.client.headers["Authorization"]
        await furnish(known)
        yield Cut(known, node, link)


@pytest.fixture
def led(fresh_database_url):
    """Run a story beside a member that leads two names, one of which is pinned."""

    def told(story) -> None:
        async def scenario():
            singletons = {"one": idle, "two": idle}
            async with member(fresh_database_url, "a", singletons=singletons) as a:
                await eventually(lambda: a.rows(LED))
                await a.db.statement(PINNED)
                async with to_be_cut(fresh_database_url) as cut:
                    await story(cut)

        run(scenario())

    return told


def without(rows: list[dict], *names: str) -> list[dict]:
    return [{key: value for key, value in row.items() if key not in names} for row in rows]


def test_what_the_replica_tells_is_what_the_database_tells(led):
    async def story(cut: Cut) -> None:
        members, leaders, status = await cut.all_three(stale=False)
        async with cut.known.db.read() as tx:
            by_database = await shown.members(tx), await shown.leaders(tx), await shown.status(tx)
        assert without(members, *VITALS) == without(by_database[0]["members"], *VITALS)
        assert without(leaders, "age_s") == without(by_database[1]["leaders"], "age_s")
        assert leaders[1]["placement"]["pinned_node"] == "a"
        assert status["summary"]["leaders"] == by_database[2]["leaders"]
        rows = [*members, *leaders]
        references = [*by_database[0]["members"], *by_database[1]["leaders"]]
        for row, reference in zip(rows, references, strict=True):
            assert abs(row["age_s"] - reference["age_s"]) < 5

    led(story)


def test_members_leaders_and_status_are_told_without_the_database(led):
    async def story(cut: Cut) -> None:
        members, leaders, status = await cut.all_three(stale=False)
        assert all(members[0][name] is not None for name in VITALS)
        cut.link.cut()
        await cut.becomes(stale=True)
        old_members, old_leaders, old_status = await cut.all_three(stale=True)
        assert without(old_members, *VITALS) == without(members, *VITALS)
        assert [old_members[0][name] for name in VITALS] == [None] * 4
        assert without(old_leaders, "age_s") == without(leaders, "age_s")
        assert old_status.keys() == status.keys()
        for key in ("leaders", "hosts", "vms", "commands", "events"):
            assert old_status[key] == status[key], key
        for name in ("locks", "waiters", "waitgraph"):
            assert (await cut.get(name)).status_code == 503
        cut.link.heal()
        await cut.becomes(stale=False)
        again, _, _ = await cut.all_three(stale=False)
        assert again[0]["renewal"] > members[0]["renewal"]

    led(story)


def test_a_status_without_the_database_says_what_is_not_known(led):
    async def story(cut: Cut) -> None:
        _, _, status = await cut.all_three(stale=False)
        cut.link.cut()
        await cut.becomes(stale=True)
        _, _, old = await cut.all_three(stale=True)
        assert old["locks"] is None
        before, summary = status["summary"], old["summary"]
        assert summary.keys() == before.keys()
        assert summary["epoch"] == {"id": before["epoch"]["id"], "timeline": None, "since": None}
        assert summary["members"] == before["members"] | {"paused": None}
        assert summary["leaders"] == before["leaders"]
        assert (summary["locks"], summary["waiters"], summary["lock_table"]) == (None, None, None)
        assert "the database is away" in summary["warnings"][0]
        cut.link.heal()

    led(story)


def test_settings_are_read_without_the_database_and_not_changed(led):
    async def story(cut: Cut) -> None:
        one = "settings/monitor_period_s"
        client = cut.node.client
        changed = await client.put(f"/api/v1/{one}", json={"value": 7})
        assert changed.status_code == 200
        before = await cut.get(one)
        assert (before.json()["value"], before.headers["ETag"]) == (7.0, changed.headers["ETag"])
        cut.link.cut()
        await cut.becomes(stale=True)
        for name in (one, "settings"):
            assert "Engine-Staleness" in (await cut.get(name)).headers
        after = await cut.get(one)
        assert (after.json(), after.headers["ETag"]) == (before.json(), before.headers["ETag"])
        refused = await client.put(f"/api/v1/{one}", json={"value": 8})
        assert refused.status_code == 503
        cut.link.heal()

    led(story)


def test_a_database_that_falls_silent_between_the_barrier_and_the_figures_is_not_waited_for(led):
    async def story(cut: Cut) -> None:
        await cut.all_three(stale=False)
        replica = cut.node.reads.replica
        passed = replica.passed

        async def then_silent():
            view = await passed()
            cut.link.freeze()
            return view

        replica.passed = then_silent
        [row] = (await cut.get("members")).json()["members"]
        assert (row["node"], row["state"], row["renewal"]) == ("a", "live", None)
        cut.link.heal()

    led(story)


@pytest.mark.parametrize(("policy", "status"), [("strict", 503), ("bounded", 503), ("fresh", 200)])
def test_the_policy_of_reads_holds_for_members_too(fresh_database_url, policy, status):
    async def scenario():
        rules = {"read_policy": policy, "read_staleness_s": 0.1, "read_wait_s": 0.3}
        async with to_be_cut(fresh_database_url, **rules) as cut:
            assert (await cut.get("members")).status_code == 200
            cut.link.cut()

            async def is_old() -> bool:
                return cut.node.reads.replica.age_s > rules["read_staleness_s"]

            await eventually(is_old)
            for name in NAMES:
                assert (await cut.get(name)).status_code == status

    run(scenario())
