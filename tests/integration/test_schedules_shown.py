"""Schedules over REST and the command line: one document, from the replica or the database."""

from __future__ import annotations

import asyncio
import json
from functools import partial

import pytest
from apinode import USER, Api, run

from engine_pg.cli.schedules import app
from engine_pg.db.listener import Doorbells
from engine_pg.errors import Invalid, NotFound
from engine_pg.schedules.declared import DECLARED, LOOPS
from engine_pg.schedules.firing import Schedules
from engine_pg.schedules.known import KNOWN

PATH = "/api/v1/schedules"
ONE = f"{PATH}/nightly"
NIGHTLY = {"work": "trim-events", "cron": "35 35 3 * * *", "zone": "Europe/Berlin"}


@pytest.fixture
def served(fresh_database_url):
    """Run a scenario against the API on a database of its own."""
    return lambda scenario, **settings: run(fresh_database_url, scenario, **settings)


@pytest.fixture
def call(command_line):
    """Call the command; what it raises is raised."""
    return partial(command_line, app)


async def declared(node: Api) -> None:
    schedules = Schedules(node.db, Doorbells(node.db.url), KNOWN, node="a")
    while await schedules.turn() == 0.0:
        pass


def test_the_engines_own_are_listed_with_when_they_fire_next_and_so_are_loops(served):
    async def scenario(node: Api):
        assert (await node.client.get(PATH)).json()["schedules"] == []
        await declared(node)
        answer = await node.client.get(PATH)
        assert answer.status_code == 200, answer.text
        found = {each["name"]: each for each in answer.json()["schedules"]}
        assert found.keys() == DECLARED.keys()
        assert all(each["declared"] and each["due_at"] for each in found.values())
        daily = found["trim-events"]
        assert daily["due_at"].endswith("T03:35:35.000+00:00")
        assert daily["default"] == {
            "description": "Delete events older than event_retention_days",
            "work": "trim-events",
            "cron": "35 35 3 * * *",
        }
        loops = {each["name"]: each for each in answer.json()["loops"]}
        assert loops.keys() == {loop.name for loop in LOOPS}
        assert loops["monitor"]["every_s"] == 7.0

    served(scenario, monitor_period_s=7.0)


def test_what_was_written_is_read_at_once_and_changes_field_by_field(served):
    async def scenario(node: Api):
        answer = await node.client.put(ONE, json=NIGHTLY | {"reason": "tidy"})
        assert answer.status_code == 200, answer.text
        made = answer.json()
        assert (made["work"], made["command"], made["changed_by"]) == ("trim-events", None, USER)
        for _ in range(20):
            changed = (await node.client.put(ONE, json={"keep_runs": 7})).json()
            read = await node.client.get(ONE)
            assert read.json() == changed
            assert read.headers["etag"] == f'"{changed["version"]}"'
            assert "age" not in read.headers
            made = (await node.client.put(ONE, json={"keep_runs": 8})).json()
            assert (await node.client.get(ONE)).json() == made
        every = (await node.client.put(ONE, json={"every_s": 60})).json()
        assert (every["cron"], every["every_s"], every["keep_runs"]) == (None, 60.0, 8)
        assert (await node.client.delete(ONE, params={"reason": "x"})).status_code == 204
        assert (await node.client.get(ONE)).status_code == 404
        texts = [event.findtext("description") for event in await node.get("/events")]
        assert texts[0] == f"The schedule nightly was removed by {USER}: x"
        assert texts[-1] == f"The schedule nightly was added by {USER}: tidy"

    served(scenario)


def test_of_two_admins_with_the_same_version_the_second_is_told(served):
    async def scenario(node: Api):
        first = {"If-Match": '"0"'}
        answers = []

        async def add(number: int) -> None:
            body = NIGHTLY | {"keep_runs": number}
            answers.append((await node.client.put(ONE, json=body, headers=first)).status_code)

        async with asyncio.TaskGroup() as group:
            for number in range(1, 6):
                group.create_task(add(number))
        assert sorted(answers) == [200] + 4 * [412]
        tag = (await node.client.get(ONE)).headers["etag"]
        headers = {"If-Match": tag}
        body = {"keep_runs": 50}
        assert (await node.client.put(ONE, json=body, headers=headers)).status_code == 200
        late = await node.client.put(ONE, json=body, headers=headers)
        assert (late.status_code, USER in late.json()["error"]) == (412, True)
        assert (await node.client.delete(ONE, headers=headers)).status_code == 412

    served(scenario)


def test_a_trigger_with_a_key_is_one_run_and_stands_in_the_history(served):
    async def scenario(node: Api):
        await node.client.put(ONE, json=NIGHTLY)
        paused = (await node.client.post(f"{ONE}/pause", params={"reason": "audit"})).json()
        assert (paused["paused"], paused["due_at"]) == (True, None)
        headers = {"Idempotency-Key": "once"}
        runs = [
            (await node.client.post(f"{ONE}/trigger", headers=headers)).json() for _ in range(3)
        ]
        assert {each["run_id"] for each in runs} == {runs[0]["run_id"]}
        busy = await node.client.post(f"{ONE}/trigger")
        assert busy.status_code == 409
        assert "the run before was not over" in busy.json()["error"]
        await node.client.put(ONE, json={"overlap": "allow"})
        other = (await node.client.post(f"{ONE}/trigger")).json()
        history = (await node.client.get(f"{ONE}/runs")).json()["runs"]
        assert [each["run_id"] for each in history] == [other["run_id"], runs[0]["run_id"]]
        assert (history[0]["cause"], history[0]["fired_by"]) == ("trigger", USER)
        assert len((await node.client.get(f"{ONE}/runs", params={"max": 1})).json()["runs"]) == 1
        resumed = (await node.client.post(f"{ONE}/resume")).json()
        assert (resumed["paused"], resumed["fired"]) == (False, 2)
        assert resumed["due_at"] is not None

    served(scenario)


def test_what_is_wrong_is_refused_in_json(served):
    async def scenario(node: Api):
        for body, said in (
            ({"cron": "* * *", "work": "trim-runs"}, "'* * *' is no cron expression: Wrong number"),
            (NIGHTLY | {"zone": "Berlin"}, "'Berlin' is no time zone: use a name such as UTC"),
            ({"tick": 3}, "There is no field tick here; there are: description, work,"),
        ):
            answer = await node.client.put(ONE, json=body)
            assert (answer.status_code, answer.json()["status"]) == (400, 400)
            assert answer.json()["error"].startswith(said)
        for method, path in (
            ("GET", ONE),
            ("DELETE", ONE),
            ("POST", f"{ONE}/pause"),
            ("POST", f"{ONE}/trigger"),
            ("GET", f"{ONE}/runs"),
        ):
            answer = await node.client.request(method, path)
            assert (answer.status_code, answer.json()["error"]) == (
                404,
                "there is no schedule nightly",
            )
        node.client.headers["Authorization"] = "Bearer wrong"
        assert (await node.client.get(PATH)).status_code == 401
        assert (await node.client.put(ONE, json=NIGHTLY)).status_code == 401

    served(scenario)


# --- on the command line


def test_the_command_line_does_all_of_it(call):
    said = call("set", "nightly", *(f"{k}={v}" for k, v in NIGHTLY.items()), "--reason", "tidy")
    assert said.startswith("nightly is at version ")
    assert "35 35 3 * * * (Europe/Berlin)" in call("list")
    assert "each 3 s" in call("list")  # monitoring, which is a loop
    assert "paused" in call("pause", "nightly")
    assert "is queued" in call("trigger", "nightly")
    [run_] = json.loads(call("history", "nightly", "--json"))["runs"]
    assert run_["cause"] == "trigger"
    assert "trigger" in call("history")
    call("resume", "nightly")
    call("set", "nightly", "cron=", "every_s=90", 'description="x=y"')
    shown = json.loads(call("show", "nightly", "--json"))
    assert (shown["every_s"], shown["cron"], shown["description"]) == (90, None, '"x=y"')
    assert "each 90 s" in call("show", "nightly")
    assert call("remove", "nightly") == "it is gone\n"
    with pytest.raises(NotFound):
        call("show", "nightly")


def test_a_command_with_its_parameters_is_set_from_the_command_line(call):
    call("set", "lab", "command=add_data_center", 'params={"name": "lab"}', "every_s=3600")
    assert json.loads(call("show", "lab", "--json"))["params"] == {"name": "lab"}
    for words, said in (
        (["every_s"], "'every_s' should be FIELD=VALUE"),
        (["params={"], "params should be a JSON object"),
        (["params=[]"], "params should be a valid dictionary"),
        (["every=3"], "a schedule has no every"),
    ):
        with pytest.raises(Invalid, match=said):
            call("set", "lab", *words)
