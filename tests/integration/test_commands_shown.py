"""What operators see of commands, and what they do about them, by command line and over HTTP."""

from __future__ import annotations

import asyncio
import json

import pytest
from apinode import api
from integration.nodes import run
from typer.testing import CliRunner

from engine_pg.cli import main
from engine_pg.commands import registry
from engine_pg.commands.desk import Desk
from engine_pg.commands.rows import Submission
from engine_pg.errors import Conflict, Invalid, NotFound
from engine_pg.ids import new_id

KEYS = {
    "command_id", "name", "description", "state", "subject_kind", "subject_id", "user_name",
    "correlation_id", "node", "member_id", "attempt", "deaths", "error_kind", "error",
    "submitted_at", "started_at", "accepted_at", "ended_at", "deadline_at", "not_before",
    "cancel_asked_at", "cancel_asked_by", "parent_id", "retry_of", "age_s", "step", "progress",
    "message",
}  # fmt: skip
STEP_KEYS = {
    "number", "name", "title", "kind", "state", "attempt", "progress", "message", "intent",
    "outcome", "error", "started_at", "ended_at",
}  # fmt: skip
STEP = """
insert into command_step (command_id, number, name, title, kind, state, attempt, progress, message)
values (%(id)s, 1, 'one', 'Doing it', 'executing', 'started', 1, 0.25, 'a quarter')
"""
FAILED = """
update command set state = 'failed', ended_at = now(), error = 'no room', error_kind = 'Conflict'
 where command_id = %(id)s
"""
BEGUN = "update command set state = 'running', attempt = 1 where command_id = %(id)s"


@pytest.fixture
def call(fresh_database_url, monkeypatch):
    """Call the command line; what it raises is raised."""
    monkeypatch.setenv("ENGINE_DATABASE_URL", fresh_database_url)
    monkeypatch.setenv("COLUMNS", "300")

    def called(*words: object, status: int = 0) -> str:
        result = CliRunner().invoke(main.app, ["commands", *map(str, words)])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == status, result.output
        return result.output

    return called


async def submitted(node, name: str = "start_vm", *queries: str, **more) -> Submission:
    submission = Submission(
        name=name, subject_id=new_id(), params={"name": "a"}, user_name="somebody", **more
    )
    async with node.db.write() as tx:
        await Desk(registry.REGISTRY).submit(tx, submission)
        for query in queries:
            await tx.run(query, {"id": submission.command_id})
    return submission


@pytest.fixture
def told(fresh_database_url):
    """Run a scenario against the API."""

    def ran(scenario):
        async def inside():
            async with api(fresh_database_url) as node:
                await scenario(node)

        run(inside())

    return ran


def test_commands_are_listed_and_shown_the_same_by_command_line_and_over_http(told, call):
    async def scenario(node):
        parent = await submitted(node, "start_vm", BEGUN)
        child = await submitted(node, "stop_vm", FAILED, parent_id=parent.command_id)
        await node.run(STEP, id=parent.command_id)
        answer = await node.client.get("/api/v1/commands")
        found = answer.json()["commands"]
        assert [each["command_id"] for each in found] == [
            str(child.command_id),
            str(parent.command_id),
        ]
        assert set(found[0]) == KEYS
        printed = json.loads(await asyncio.to_thread(call, "list", "--json"))["commands"]
        ages = ("age_s",)
        assert [{k: v for k, v in each.items() if k not in ages} for each in printed] == [
            {k: v for k, v in each.items() if k not in ages} for each in found
        ]
        one = (await node.client.get(f"/api/v1/commands/{parent.command_id}")).json()
        assert set(one) == KEYS | {"steps", "children"}
        [step] = one["steps"]
        assert set(step) == STEP_KEYS
        assert [each["command_id"] for each in one["children"]] == [str(child.command_id)]
        text = await asyncio.to_thread(call, "show", parent.command_id)
        for words in ("Starting VM a", "Doing it", "25%", "a quarter", "no room", "somebody"):
            assert words in text
        table = await asyncio.to_thread(call, "list")
        assert "Doing it, 25%, a quarter" in table
        assert "no room" in table

    told(scenario)


def test_filters_choose(told, call):
    async def scenario(node):
        one = await submitted(node, "start_vm", FAILED)
        two = await submitted(node, "stop_vm", parent_id=one.command_id)

        async def ids(**params):
            answer = await node.client.get("/api/v1/commands", params=params)
            assert answer.status_code == 200, answer.text
            return [each["command_id"] for each in answer.json()["commands"]]

        assert await ids(state="failed") == [str(one.command_id)]
        assert await ids(open="true") == [str(two.command_id)]
        assert await ids(subject_id=str(two.subject_id)) == [str(two.command_id)]
        assert await ids(parent_id=str(one.command_id)) == [str(two.command_id)]
        assert await ids(user_name="nobody") == await ids(node="nowhere") == []
        assert await ids(max="1") == [str(two.command_id)]
        for wrong in ({"state": "odd"}, {"subject_id": "x"}, {"age": "1"}):
            answer = await node.client.get("/api/v1/commands", params=wrong)
            assert answer.status_code == 400
        listed = await asyncio.to_thread(call, "list", "--json", "--state", "failed")
        assert [each["command_id"] for each in json.loads(listed)["commands"]] == [
            str(one.command_id)
        ]
        with pytest.raises(Invalid, match="there is no state odd"):
            await asyncio.to_thread(call, "list", "--state", "odd")

    told(scenario)


def test_a_command_is_cancelled_over_http_and_by_command_line(told, call):
    async def scenario(node):
        first, second = await submitted(node), await submitted(node)
        answer = await node.client.post(f"/api/v1/commands/{first.command_id}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
        assert answer.json()["cancel_asked_by"] == "admin@internal"
        said = await asyncio.to_thread(call, "cancel", second.command_id)
        assert f"{second.command_id}  Starting VM a: cancelled" in said
        begun = await submitted(node, "start_vm", BEGUN)
        answer = await node.client.post(f"/api/v1/commands/{begun.command_id}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (202, "running")
        said = await asyncio.to_thread(call, "cancel", begun.command_id, "--wait", 0, status=1)
        assert "running (it was asked to end)" in said
        over = await submitted(node, "start_vm", FAILED)
        answer = await node.client.post(f"/api/v1/commands/{over.command_id}/cancel")
        assert answer.status_code == 409
        assert "has ended already (failed)" in answer.json()["error"]
        with pytest.raises(Conflict, match="has ended already"):
            await asyncio.to_thread(call, "cancel", over.command_id)
        with pytest.raises(NotFound):
            await asyncio.to_thread(call, "cancel", new_id())
        assert (await node.client.post(f"/api/v1/commands/{new_id()}/cancel")).status_code == 404
        assert (await node.client.get("/api/v1/commands/x")).status_code == 404
        job = await node.get(f"/jobs/{first.command_id}")
        assert job.findtext("status") == "aborted"

    told(scenario)


def test_a_command_is_retried_over_http_and_by_command_line(told, call):
    async def scenario(node):
        failed = await submitted(node, "start_vm", FAILED)
        answer = await node.client.post(f"/api/v1/commands/{failed.command_id}/retry")
        again = answer.json()
        assert answer.status_code == 202
        assert answer.headers["location"] == f"/api/v1/commands/{again['command_id']}"
        assert (again["retry_of"], again["state"]) == (str(failed.command_id), "queued")
        printed = await asyncio.to_thread(call, "retry", failed.command_id, "--json")
        assert json.loads(printed)["command_id"] == again["command_id"]
        answer = await node.client.post(f"/api/v1/commands/{again['command_id']}/retry")
        assert answer.status_code == 409

    told(scenario)


def test_a_request_says_how_long_its_command_has(told):
    async def scenario(node):
        body = {"name": "x", "cluster": {"name": "c"}, "template": {"name": "Blank"}}
        for text in ("0x1", "-1", "", "1e3"):
            answer = await node.client.post(
                "/ovirt-engine/api/datacenters",
                json=body | {"local": False},
                headers={"Engine-Deadline": text, "Accept": "application/json"},
            )
            assert answer.status_code == 400, answer.text
            assert "Engine-Deadline is a number of seconds" in answer.text
        await node.client.post(
            "/ovirt-engine/api/datacenters",
            json={"name": "x", "local": False},
            headers={"Engine-Deadline": "2.5"},
        )
        assert [each.deadline_s for each in node.commands.submissions] == [2.5]

    told(scenario)


def test_progress_and_what_goes_on_are_in_a_jobs_step(told):
    async def scenario(node):
        made = await submitted(node, "start_vm", STEP, BEGUN)
        [step] = await node.get(f"/jobs/{made.command_id}/steps")
        assert step.findtext("progress") == "25"
        assert step.findtext("description") == "Doing it: a quarter"

    told(scenario)
