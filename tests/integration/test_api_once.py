"""Requests that are sent again: what is done once, how they are answered, and what is refused."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from apinode import API, Api, Furniture, furnish, run, serving
from defusedxml import ElementTree

from engine_pg import errors
from engine_pg.api.accounts import users
from engine_pg.commands import keys
from engine_pg.commands.keys import RequestKey
from engine_pg.ids import new_id

VM = (
    "<vm><name>new</name><cluster><name>c1</name></cluster>"
    "<template><name>Blank</name></template></vm>"
)
INSERT_VM = """
insert into vm (vm_id, cluster_id, template_id, name, memory_bytes)
values (%(id)s, %(cluster_id)s, %(template_id)s, %(name)s, %(memory_bytes)s)
"""
FORGET_ANSWERS = "update request_key set answer = null"
AGE = "update request_key set claimed_at = claimed_at - interval '6 min'"
XML = {"Content-Type": "application/xml"}


async def effect(tx, submission):
    if submission.name == "add_vm":
        await tx.run(INSERT_VM, submission.params | {"id": submission.subject_id})
    if submission.name == "remove_vm":
        await tx.run("delete from vm where vm_id = %(id)s", {"id": submission.subject_id})


@pytest.fixture
def change(fresh_database_url):
    """Run a scenario on a furnished database of its own."""

    def changed(scenario):
        async def furnished(node: Api):
            node.commands.effect = effect
            await scenario(node, await furnish(node))

        run(fresh_database_url, furnished)

    return changed


async def send(node: Api, method: str, path: str, body: str = "", **headers: str):
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return await node.client.request(method, API + path, content=body, headers=XML | named)


def ids(node: Api) -> list[UUID]:
    return [each.command_id for each in node.commands.submissions]


def test_a_repeated_request_with_a_key_is_done_once_and_answered_as_it_was(change):
    async def scenario(node: Api, _made: Furniture):
        key = {"Idempotency_Key": "k1"}
        first = await send(node, "POST", "/vms", VM, **key)
        gone = await send(node, "DELETE", f"/vms/{node.commands.submissions[0].subject_id}")
        again = await send(node, "POST", "/vms", VM, **key)
        assert (first.status_code, gone.status_code, again.status_code) == (201, 200, 201)
        assert again.content == first.content, "though it was removed meanwhile"
        assert again.headers["location"] == first.headers["location"]
        assert again.headers["content-type"] == first.headers["content-type"]
        assert again.headers["idempotency-replayed"] == "true"
        assert "idempotency-replayed" not in first.headers
        assert len(ids(node)) == 2

    change(scenario)


def test_a_removal_whose_answer_was_lost_is_answered_from_its_command(change):
    async def scenario(node: Api, made: Furniture):
        path, key = f"/vms/{made.vms[1]}", {"Idempotency_Key": "k1"}
        assert (await send(node, "DELETE", path, **key)).status_code == 200
        await node.run(FORGET_ANSWERS)  # as if its node had died before it answered
        assert (await send(node, "DELETE", path, **key)).status_code == 200
        assert len(set(ids(node))) == 1
        assert (await send(node, "DELETE", path)).status_code == 404

    change(scenario)


def test_an_addition_whose_node_died_before_it_was_submitted_is_done_by_the_next(change):
    async def scenario(node: Api, _made: Furniture):
        node.commands.raising = errors.DatabaseAway("no writable PostgreSQL answers")
        key = {"Idempotency_Key": "k1"}
        assert (await send(node, "POST", "/vms", VM, **key)).status_code == 503
        node.commands.raising = None
        node.commands.submissions.clear()
        assert (await send(node, "POST", "/vms", VM, **key)).status_code == 201
        assert (await send(node, "POST", "/vms", VM, **key)).status_code == 201
        assert len(ids(node)) == 1

    change(scenario)


@pytest.mark.parametrize(
    "again",
    [
        {"body": VM.replace("new", "other")},
        {"path": "/vms?x=1"},
        {"path": "/clusters"},
        {"method": "DELETE"},
    ],
)
def test_a_key_that_stands_for_another_request_is_refused(change, again):
    async def scenario(node: Api, _made: Furniture):
        first = {"method": "POST", "path": "/vms", "body": VM}
        assert (await send(node, **first, Idempotency_Key="k1")).status_code == 201
        answer = await send(node, **first | again, Idempotency_Key="k1")
        assert answer.status_code == 422
        fault = ElementTree.fromstring(answer.content)
        assert fault.tag == "fault"
        assert "stands for another request" in fault.findtext("detail")
        assert len(ids(node)) == 1

    change(scenario)


def test_a_key_belongs_to_its_user(change):
    async def scenario(node: Api, made: Furniture):
        path = f"/vms/{made.vms[1]}/start"
        await send(node, "POST", path, "<action/>", Idempotency_Key="k1")
        async with node.db.write() as tx:
            admin = await users.find(tx, "admin@internal")
            await users.add(tx, "other@internal", admin.password_hash)
        token = (await node.login("other@internal")).json()["access_token"]
        node.client.headers["Authorization"] = f"Bearer {token}"
        await send(node, "POST", path, "<action/>", Idempotency_Key="k1")
        await send(node, "POST", path, "<action/>", Idempotency_Key="k2")
        await send(node, "POST", path, "<action/>")
        assert len(set(ids(node))) == 4
        assert (await send(node, "POST", path, Idempotency_Key="x" * 300)).status_code == 400
        assert (await send(node, "POST", path, Idempotency_Key="")).status_code == 400

    change(scenario)


def test_requests_at_once_under_one_key_are_one_command_on_whatever_node(change):
    async def scenario(node: Api, made: Furniture):
        async with serving(node.db) as other:
            other.client.headers["Authorization"] = node.client.headers["Authorization"]
            path = f"/vms/{made.vms[1]}/start"
            asking = [(one, number) for one in (node, other) for number in range(10)]
            async with asyncio.TaskGroup() as group:
                answers = [
                    group.create_task(send(one, "POST", path, "<action/>", Idempotency_Key="k"))
                    for one, _ in asking
                ]
        jobs = {ElementTree.fromstring(each.result().content).find("job").get("id")
                for each in answers}  # fmt: skip
        assert {each.result().status_code for each in answers} == {200}
        assert len(jobs) == 1
        rows = await node.get("/jobs")
        assert len(rows) == 1

    change(scenario)


def test_a_pending_action_is_told_as_complete_later_under_the_same_key(change):
    async def scenario(node: Api, made: Furniture):
        path, key = f"/vms/{made.vms[0]}/stop", {"Idempotency_Key": "k1"}
        node.commands.state = "running"
        first = await send(node, "POST", path, "<action/>", **key)
        assert ElementTree.fromstring(first.content).findtext("status") == "pending"
        node.commands.state = "succeeded"
        again = await send(node, "POST", path, "<action/>", **key)
        assert ElementTree.fromstring(again.content).findtext("status") == "complete"
        assert len(set(ids(node))) == 1

    change(scenario)


def test_a_correlation_id_with_the_same_request_is_the_same_command_for_a_while(change):
    async def scenario(node: Api, made: Furniture):
        named = {"Correlation_Id": "flow"}

        async def start() -> UUID:
            await send(node, "POST", f"/vms/{made.vms[1]}/start", "<action/>", **named)
            return ids(node)[-1]

        first = await start()
        await node.run(FORGET_ANSWERS)
        assert await start() == first
        await send(node, "POST", f"/vms/{made.vms[2]}/start", "<action/>", **named)
        await node.run(FORGET_ANSWERS)
        assert await start() == first, "what was done to another VM does not matter"
        await send(node, "POST", f"/vms/{made.vms[1]}/stop", "<action/>", **named)
        second = await start()
        assert second != first, "it was stopped since"
        await node.run(FORGET_ANSWERS)
        assert await start() == second
        await node.run(AGE)
        assert await start() != second

    change(scenario)


def test_a_request_whose_correlation_id_the_engine_chose_is_never_a_repetition(change):
    async def scenario(node: Api, made: Furniture):
        for _ in range(2):
            await send(node, "POST", f"/vms/{made.vms[1]}/start", "<action/>")
        assert len(set(ids(node))) == 2
        async with node.db.read() as tx:
            assert await tx.all("select from request_key") == []

    change(scenario)


def test_an_answer_is_kept_for_the_command_that_it_is_of(change):
    async def scenario(node: Api, _made: Furniture):
        key = RequestKey(new_id(), "correlation/x", "digest", lasting=False)
        first = await keys.claim(node.db, key)
        await node.run(AGE)
        second = await keys.claim(node.db, key)
        assert first.command_id != second.command_id
        await keys.keep(node.db, first, {"status": 200})
        assert (await keys.claim(node.db, key)).answer is None
        await keys.keep(node.db, second, {"status": 201})
        await keys.keep(node.db, second, {"status": 202})
        assert (await keys.claim(node.db, key)).answer == {"status": 201}

    change(scenario)
