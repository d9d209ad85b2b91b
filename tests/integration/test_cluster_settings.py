"""Cluster settings: refused when wrong, safe from a second admin, told to every node, audited."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import asynccontextmanager
from functools import partial

import psycopg
import pytest
from apinode import USER, Api, run
from integration.nodes import eventually

from engine_pg.cli.settings import app
from engine_pg.cluster.feed import Feed
from engine_pg.configuration import store
from engine_pg.configuration.live import LiveSettings
from engine_pg.configuration.store import Author
from engine_pg.db.database import Database
from engine_pg.db.listener import Doorbells
from engine_pg.errors import Invalid, NotFound, Outdated

PATH = "/api/v1/settings"
ONE = f"{PATH}/monitor_period_s"
ADMIN = Author("a@internal")


@pytest.fixture
def served(fresh_database_url):
    """Run a scenario against the API on a database of its own."""
    return lambda scenario: run(fresh_database_url, scenario)


@pytest.fixture
def call(command_line):
    """Call the command; what it raises is raised."""
    return partial(command_line, app)


@asynccontextmanager
async def following(url: str):
    """Yield the settings of a node that follows the database."""
    async with Database(url, name="engine_pg follower") as db:
        bells, live = Doorbells(url), LiveSettings()
        async with asyncio.TaskGroup() as group:
            jobs = [
                group.create_task(bells.run()),
                group.create_task(live.follow(Feed(db, bells), bells)),
            ]
            yield live
            for job in jobs:
                job.cancel()


async def assign(url: str, name: str, value: object, **options) -> store.Book:
    async with Database(url) as db, db.write() as tx:
        return await store.assign(tx, name, value, ADMIN, **options)


# --- over HTTP


def test_all_settings_are_listed_at_their_defaults(served):
    async def scenario(node: Api):
        answer = await node.client.get(PATH)
        assert (answer.status_code, answer.headers["etag"]) == (200, '"0"')
        found = {each["name"]: each for each in answer.json()["settings"]}
        assert found["monitor_period_s"] == {
            "name": "monitor_period_s",
            "value": 3.0,
            "default": 3.0,
            "type": "number",
            "minimum": 0.1,
            "maximum": 60,
            "enum": None,
            "description": "Interval of looks at each host",
            "version": 0,
            "changed_at": None,
            "changed_by": None,
        }
        assert answer.json()["warnings"] == []

    served(scenario)


def test_a_change_is_read_back_with_who_made_it_and_a_new_version(served):
    async def scenario(node: Api):
        answer = await node.client.put(ONE, json={"value": 5, "reason": "fewer"})
        assert answer.status_code == 200, answer.text
        changed = answer.json()
        assert (changed["value"], changed["changed_by"]) == (5.0, USER)
        again = await node.client.get(ONE)
        assert again.json() == changed
        assert again.headers["etag"] == answer.headers["etag"] == f'"{changed["version"]}"'
        back = (await node.client.delete(ONE)).json()
        assert (back["value"], back["version"] > changed["version"]) == (3.0, True)

    served(scenario)


def test_each_change_stands_in_the_history_and_is_an_event(served):
    async def scenario(node: Api):
        await node.client.put(ONE, json={"value": 5, "reason": "fewer"})
        await node.client.delete(ONE, params={"reason": "more"})
        await node.client.put(f"{PATH}/accept_wait_s", json={"value": 1})
        answer = await node.client.get(f"{PATH}/history", params={"name": "monitor_period_s"})
        found = [
            [each[key] for key in ("old_value", "new_value", "changed_by", "reason")]
            for each in answer.json()["changes"]
        ]
        assert found == [[5.0, None, USER, "more"], [None, 5.0, USER, "fewer"]]
        texts = [event.findtext("description") for event in await node.get("/events")]
        assert texts[:3] == [
            f"The setting accept_wait_s was changed from its default to 1.0 by {USER}.",
            f"The setting monitor_period_s was changed from 5.0 to its default by {USER}: more",
            f"The setting monitor_period_s was changed from its default to 5.0 by {USER}: fewer",
        ]
        every = (await node.client.get(f"{PATH}/history", params={"max": 1})).json()["changes"]
        assert [each["name"] for each in every] == ["accept_wait_s"]

    served(scenario)


def test_setting_what_is_set_changes_nothing(served):
    async def scenario(node: Api):
        first = (await node.client.put(ONE, json={"value": 5})).json()
        assert (await node.client.put(ONE, json={"value": 5.0})).json() == first
        await node.client.delete(ONE)
        assert (await node.client.delete(ONE)).status_code == 200
        assert len((await node.client.get(f"{PATH}/history")).json()["changes"]) == 2

    served(scenario)


def test_of_two_admins_with_the_same_version_the_second_is_told(served):
    async def scenario(node: Api):
        tag = (await node.client.get(ONE)).headers["etag"]
        answers = []

        async def change(value: int) -> None:
            headers = {"If-Match": tag}
            answers.append(await node.client.put(ONE, json={"value": value}, headers=headers))

        async with asyncio.TaskGroup() as group:
            for value in range(10, 18):
                group.create_task(change(value))
        assert sorted(answer.status_code for answer in answers) == [200] + 7 * [412]
        [won] = [answer.json()["value"] for answer in answers if answer.status_code == 200]
        assert (await node.client.get(ONE)).json()["value"] == won
        told = next(answer.json() for answer in answers if answer.status_code == 412)
        assert USER in told["error"]
        late = await node.client.delete(ONE, headers={"If-Match": tag})
        assert late.status_code == 412

    served(scenario)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"value": 0}', "monitor_period_s should be greater than or equal to 0.1, not 0"),
        ('{"value": "3"}', "monitor_period_s should be a valid number, not 3"),
        ('{"value": true}', "monitor_period_s should be a valid number, not True"),
        ('{"value": NaN}', "monitor_period_s should be a finite number, not nan"),
        ('{"value": 1e999}', "monitor_period_s should be a finite number, not inf"),
        ('{"value": null}', "monitor_period_s should have a value; a reset gives it its default"),
        ("{}", "monitor_period_s should have a value; a reset gives it its default"),
        ('{"valve": 3}', "There is no field valve here; there are: value, reason"),
        ("3", "The body should be a JSON object"),
        ("[" * 100_000, "The body should be a JSON object"),
        ('{"value": 4, "reason": "a\\u0000b"}', "the reason should be one line of at most 1000"),
        ('{"value": 4, "reason": "\\ud800"}', "the reason should be one line of at most 1000"),
    ],
)
def test_what_is_wrong_is_refused_in_json_and_changes_nothing(served, body, said):
    async def scenario(node: Api):
        answer = await node.client.put(ONE, content=body)
        assert (answer.status_code, answer.json()["status"]) == (400, 400)
        assert answer.json()["error"].startswith(said)
        assert (await node.client.get(PATH)).json()["version"] == 0

    served(scenario)


@pytest.mark.parametrize("tag", ["3", 'W/"3"', '"x"', '"1", "2"'])
def test_an_if_match_that_is_no_version_is_refused(served, tag):
    async def scenario(node: Api):
        answer = await node.client.put(ONE, json={"value": 4}, headers={"If-Match": tag})
        assert answer.status_code == 400

    served(scenario)


def test_an_unknown_setting_is_not_found_however_it_is_asked_for(served):
    async def scenario(node: Api):
        path = f"{PATH}/monitor_perod_s"
        for answer in (
            await node.client.get(path),
            await node.client.put(path, json={"value": 3}),
            await node.client.delete(path),
        ):
            assert answer.status_code == 404
            assert "monitor_perod_s" in answer.json()["error"]

    served(scenario)


def test_only_who_logged_in_sees_or_changes_settings(served):
    async def scenario(node: Api):
        node.client.headers["Authorization"] = "Bearer wrong"
        for answer in (
            await node.client.get(PATH),
            await node.client.get(f"{PATH}/history"),
            await node.client.put(ONE, json={"value": 4}),
            await node.client.delete(ONE),
        ):
            assert answer.status_code == 401

    served(scenario)


# --- over SQL


def test_a_change_by_sql_leaves_the_same_trace(fresh_database_url):
    with psycopg.connect(fresh_database_url, autocommit=True) as session:
        session.execute("insert into setting (name, value) values ('monitor_period_s', '7')")
        session.execute("update setting set value = '8', version = 1, changed_by = 'nobody'")
        session.execute("delete from setting")
        query = "select old_value, new_value, changed_by, version from setting_change order by 4"
        found = session.execute(query).fetchall()
        user = session.execute("select session_user").fetchone()[0]
        assert [row[:3] for row in found] == [(None, 7, user), (7, 8, user), (8, None, user)]
        versions = [row[3] for row in found]
        assert versions == sorted(set(versions))
        count = session.execute("select count(*) from event_inbox where code = 9711").fetchone()
        assert count == (3,)


def test_a_bad_value_by_sql_counts_as_the_default_is_shown_and_stands_in_nobodys_way(served):
    async def scenario(node: Api):
        await node.run("insert into setting (name, value) values ('monitor_period_s', '\"x\"')")
        await node.run("insert into setting (name, value) values ('from_the_future', '1')")
        shown = (await node.client.get(PATH)).json()
        assert {each["value"] for each in shown["settings"] if each["name"] in ONE} == {3.0}
        assert len(shown["warnings"]) == 2
        assert (await node.client.put(f"{PATH}/accept_wait_s", json={"value": 4})).is_success
        assert (await node.client.put(ONE, json={"value": 3})).is_success
        assert len((await node.client.get(PATH)).json()["warnings"]) == 1

    served(scenario)


# --- carried to the nodes


def test_every_node_goes_by_a_change_soon_whoever_made_it(fresh_database_url):
    async def scenario():
        async with following(fresh_database_url) as one, following(fresh_database_url) as other:
            await assign(fresh_database_url, "monitor_period_s", 5)

            async def arrived(value: float) -> bool:
                return all(live.now.monitor_period_s == value for live in (one, other))

            await eventually(lambda: arrived(5.0), bound_s=3)
            async with await psycopg.AsyncConnection.connect(
                fresh_database_url, autocommit=True
            ) as session:
                await session.execute("update setting set value = '6'")
                await eventually(lambda: arrived(6.0), bound_s=3)
                assert one.version == other.version > 1
                await session.execute("delete from setting")
                await eventually(lambda: arrived(3.0), bound_s=3)
                await session.execute("insert into setting values ('monitor_period_s', '7')")
                await eventually(lambda: arrived(7.0), bound_s=3)
                await session.execute("truncate setting")
                await eventually(lambda: arrived(3.0))  # with the next poll

    asyncio.run(scenario())


def test_who_waits_for_a_change_is_woken_by_it_and_by_nothing_else(fresh_database_url):
    async def scenario():
        async with following(fresh_database_url) as live:
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(live.changed(30))
                await assign(fresh_database_url, "monitor_period_s", 5)
                async with asyncio.timeout(3):
                    await waiting
            waiting = live.changed(0.2)
            await assign(fresh_database_url, "monitor_period_s", 5)
            await waiting

    asyncio.run(scenario())


AWAY = """
do $$ begin
  alter table feed_horizon rename to gone_horizon;
  alter table setting rename to gone;
end $$
"""
BACK = """
do $$ begin
  alter table gone_horizon rename to feed_horizon;
  alter table gone rename to setting;
end $$
"""


def test_the_last_known_settings_stay_while_the_database_does_not_answer(
    fresh_database_url, caplog
):
    caplog.set_level(logging.INFO, "engine_pg.configuration.live")

    async def scenario():
        await assign(fresh_database_url, "monitor_period_s", 5)
        async with following(fresh_database_url) as live:

            async def arrived() -> bool:
                return live.now.monitor_period_s == 5.0

            async def failed() -> bool:
                return "could not be read" in caplog.text

            await eventually(arrived)
            async with await psycopg.AsyncConnection.connect(
                fresh_database_url, autocommit=True
            ) as session:
                await session.execute(AWAY)
                await session.execute("update gone set value = '6'")
                await eventually(failed)
                assert await arrived()
                await session.execute(BACK)

            async def went_on() -> bool:
                return live.now.monitor_period_s == 6.0

            await eventually(went_on)

    asyncio.run(scenario())


def test_a_running_api_goes_by_a_new_limit_without_restart(served):
    async def scenario(node: Api):
        live: LiveSettings = node.client._transport.app.state.services.settings
        await node.client.put(f"{PATH}/request_body_limit_bytes", json={"value": 1024})
        async with node.db.read() as tx:
            live._take(await store.read(tx))
        answer = await node.client.put(ONE, json={"value": 4, "reason": "x" * 2000})
        assert answer.status_code == 413

    served(scenario)


# --- checked where it is stored


def test_the_store_refuses_what_it_should(fresh_database_url):
    async def scenario():
        for name, value, kind in (
            ("monitor_period_s", 100, Invalid),
            ("monitor_period_s", None, Invalid),
            ("nothing", 1, NotFound),
        ):
            with pytest.raises(kind):
                await assign(fresh_database_url, name, value)
        with pytest.raises(Outdated, match="is at version 0, not 4"):
            await assign(fresh_database_url, "monitor_period_s", 4, expected=4)

    asyncio.run(scenario())


# --- on the command line


def test_the_command_line_lists_sets_shows_and_resets(call):
    assert "accept_wait_s" in call("list")
    said = call("set", "accept_wait_s", "7", "--reason", "patience")
    assert said.startswith("accept_wait_s is 7, version ")
    shown = json.loads(call("show", "accept_wait_s", "--json"))
    assert (shown["value"], shown["default"]) == (7.0, 10.0)
    assert "accept_wait_s" in call("list", "--changed")
    assert "monitor_period_s" not in call("list", "--changed")
    version = shown["version"]
    reset = json.loads(call("reset", "accept_wait_s", "--if-version", version, "--json"))
    assert (reset["value"], reset["version"] > version) == (10.0, True)
    [last, first] = json.loads(call("history", "accept_wait_s", "--json"))["changes"]
    assert (first["reason"], first["new_value"], last["new_value"]) == ("patience", 7.0, None)
    assert "patience" in call("history")
    with pytest.raises(Outdated):
        call("set", "accept_wait_s", "8", "--if-version", version)


def test_the_command_line_refuses_what_is_wrong(call):
    with pytest.raises(Invalid, match="accept_wait_s should be less than or equal to 300"):
        call("set", "accept_wait_s", "301")
    with pytest.raises(NotFound):
        call("show", "nothing")
