"""Changing things through the API: what becomes a command, and what its end becomes."""

from __future__ import annotations

import re
from uuid import uuid4

import pytest
from apinode import API, Api, Furniture, furnish, run
from defusedxml import ElementTree
from psycopg.types.json import Jsonb

from engine_pg import errors
from engine_pg.ids import BLANK_TEMPLATE_ID, new_id

VM = "<vm><name>new</name><cluster><name>c1</name></cluster><template><name>Blank</name></template>"

INSERT_VM = """
insert into vm (vm_id, cluster_id, template_id, name, memory_bytes, attrs)
values (%(id)s, %(cluster_id)s, %(template_id)s, %(name)s, %(memory_bytes)s, %(attrs)s)
"""


async def insert_vm(tx, submission):
    params = submission.params
    values = {key: params[key] for key in ("name", "cluster_id", "template_id", "memory_bytes")}
    attrs = Jsonb(params.get("attrs", {}))
    await tx.run(INSERT_VM, values | {"id": submission.subject_id, "attrs": attrs})


@pytest.fixture
def change(fresh_database_url):
    """Run a scenario on a furnished database of its own."""

    def changed(scenario, **settings):
        async def furnished(node: Api):
            await scenario(node, await furnish(node))

        run(fresh_database_url, furnished, **settings)

    return changed


async def post(node: Api, path: str, body: str, **headers: str):
    headers = {"Content-Type": "application/xml"} | headers
    return await node.client.post(API + path, content=body, headers=headers)


def fault(answer) -> str:
    element = ElementTree.fromstring(answer.content)
    assert element.tag == "fault"
    return element.findtext("detail")


def test_an_add_is_a_command_and_answers_with_the_entity(change):
    async def scenario(node: Api, made: Furniture):
        node.commands.effect = insert_vm
        body = (
            VM
            + "<description>d</description><high_availability><priority>7</priority>\
</high_availability></vm>"
        )
        answer = await post(node, "/vms", body, **{"Correlation-Id": "c-1"})
        assert answer.status_code == 201
        [submission] = node.commands.submissions
        vm = ElementTree.fromstring(answer.content)
        assert vm.get("id") == str(submission.subject_id)
        assert answer.headers["location"] == vm.get("href")
        assert vm.findtext("high_availability/priority") == "7"
        assert submission.name == "add_vm"
        assert (submission.user_name, submission.correlation_id) == ("admin@internal", "c-1")
        assert submission.params == {
            "name": "new",
            "description": "d",
            "cluster_id": str(made.cluster),
            "template_id": str(BLANK_TEMPLATE_ID),
            "memory_bytes": 1 << 30,
            "cpu_sockets": 1,
            "cpu_cores": 1,
            "cpu_threads": 1,
            "os_type": "other",
            "vm_type": "server",
            "attrs": {"high_availability/priority": 7},
        }

    change(scenario)


def test_json_adds_the_same(change):
    async def scenario(node: Api, made: Furniture):
        node.commands.effect = insert_vm
        body = {
            "name": "new",
            "cluster": {"id": str(made.cluster)},
            "template": {"name": "Blank"},
            "memory": str(2 << 30),
            "os": {"boot": {"devices": {"device": ["network", "hd"]}}},
        }
        answer = await node.client.post(
            f"{API}/vms", json=body, headers={"Accept": "application/json"}
        )
        assert answer.status_code == 201
        assert answer.json()["memory"] == str(2 << 30)
        assert answer.json()["os"]["boot"]["devices"]["device"] == ["network", "hd"]

    change(scenario)


@pytest.mark.parametrize(
    ("path", "body", "detail"),
    [
        ("/vms", "<vm/>", r"Vm \[name, cluster.id\|name, template.id\|name\] required for add"),
        ("/vms", "", r"Vm \[name, cluster.*required for add"),
        ("/vms", VM.replace("new", "") + "</vm>", r"Vm \[name\] required for add"),
        ("/vms", VM.replace("c1", "nowhere") + "</vm>", "there is no cluster 'nowhere'"),
        ("/vms", VM.replace("Blank", "Other") + "</vm>", "there is no template Other"),
        ("/vms", VM + "<memory>lots</memory></vm>", "element memory is not a whole number"),
        ("/vms", VM, "not acceptable XML"),
        ("/vms", "<host/>", "<vm> is expected, not <host>"),
        ("/vms", f"<!DOCTYPE a>{VM}</vm>", "not acceptable XML"),
        ("/hosts", "<host><name>h</name></host>", r"Host \[address, cluster.id\|name\] required"),
        ("/clusters", "<cluster><name>c</name></cluster>", r"Cluster \[data_center.id\|name\]"),
        ("/datacenters", "<data_center/>", r"DataCenter \[name\] required for add"),
        ("/vms", VM + f"<cluster id='{uuid4()}'/></vm>", "element cluster"),
        ("/vms", VM.replace("<name>c1</name>", f"<x id='{uuid4()}'/>") + "</vm>", "neither an id"),
        ("/vms", VM.replace("<name>new", "<name>a b/;c") + "</vm>", "element name"),
    ],
)
def test_a_malformed_add_never_becomes_a_command(change, path, body, detail):
    async def scenario(node: Api, _made: Furniture):
        answer = await post(node, path, body)
        assert answer.status_code == 400
        assert re.search(detail, fault(answer))
        assert node.commands.submissions == []

    change(scenario)


def test_a_reference_to_what_is_not_there_is_told(change):
    async def scenario(node: Api, _made: Furniture):
        id_ = new_id()
        body = VM.replace("<cluster><name>c1</name></cluster>", f"<cluster id='{id_}'/>") + "</vm>"
        answer = await post(node, "/vms", body)
        assert answer.status_code == 400
        assert str(id_) in fault(answer)

    change(scenario)


@pytest.mark.parametrize("media", ["text/plain", "application/x-www-form-urlencoded", "image/png"])
def test_a_body_in_another_format_is_refused(change, media):
    async def scenario(node: Api, _made: Furniture):
        answer = await post(node, "/vms", VM + "</vm>", **{"Content-Type": media})
        assert answer.status_code == 400
        assert media in fault(answer)

    change(scenario)


def test_a_body_that_is_too_large_is_refused(change):
    async def scenario(node: Api, _made: Furniture):
        answer = await post(node, "/vms", VM + f"<description>{'x' * 5000}</description></vm>")
        assert answer.status_code == 413

    change(scenario, request_body_limit_bytes=4096)


def test_an_update_changes_only_what_is_given_and_keeps_the_rest(change):
    async def scenario(node: Api, made: Furniture):
        path = f"{API}/vms/{made.vms[1]}"
        body = f"<vm id='{made.vms[1]}'><comment></comment><memory>{5 << 30}</memory>\
<stateless>true</stateless><disk_attachments/></vm>"
        answer = await node.client.put(path, content=body)
        assert answer.status_code == 200
        assert ElementTree.fromstring(answer.content).tag == "vm"
        [submission] = node.commands.submissions
        assert (submission.name, submission.subject_id) == ("update_vm", made.vms[1])
        assert submission.params == {
            "comment": "",
            "memory_bytes": 5 << 30,
            "attrs": {"stateless": True},  # merged by the command, key by key
        }

    change(scenario)


def test_an_update_that_changes_nothing_is_no_command(change):
    async def scenario(node: Api, made: Furniture):
        body = f"<vm><cluster id='{made.cluster}'/><template id='{BLANK_TEMPLATE_ID}'/></vm>"
        answer = await node.client.put(f"{API}/vms/{made.vms[0]}", content=body)
        assert answer.status_code == 200
        assert node.commands.submissions == []

    change(scenario)


def test_nothing_moves_to_another_cluster(change):
    async def scenario(node: Api, made: Furniture):
        other = await furnish(node, "other_")
        body = f"<vm><cluster id='{other.cluster}'/></vm>"
        answer = await node.client.put(f"{API}/vms/{made.vms[0]}", content=body)
        assert answer.status_code == 409
        assert "another cluster" in fault(answer)
        assert node.commands.submissions == []

    change(scenario)


def test_a_name_cannot_be_emptied(change):
    async def scenario(node: Api, made: Furniture):
        answer = await node.client.put(f"{API}/vms/{made.vms[0]}", content="<vm><name></name></vm>")
        assert answer.status_code == 400

    change(scenario)


def test_a_removal_answers_with_200_and_an_action(change):
    async def scenario(node: Api, made: Furniture):
        for path, name, id_ in (
            ("vms", "remove_vm", made.vms[1]),
            ("hosts", "remove_host", made.host),
            ("clusters", "remove_cluster", made.cluster),
            ("datacenters", "remove_data_center", made.dc),
        ):
            answer = await node.client.delete(f"{API}/{path}/{id_}", params={"async": "true"})
            assert answer.status_code == 200
            assert "<action><status>complete</status></action>" in answer.text
            submission = node.commands.submissions[-1]
            assert (submission.name, submission.subject_id) == (name, id_)

    change(scenario)


@pytest.mark.parametrize(
    ("path", "command", "until"),
    [
        ("vms/{vm}/start", "start_vm", "accepted"),
        ("vms/{vm}/stop", "stop_vm", "final"),
        ("vms/{vm}/shutdown", "shutdown_vm", "accepted"),
        ("hosts/{host}/activate", "activate_host", "accepted"),
        ("hosts/{host}/deactivate", "deactivate_host", "final"),
    ],
)
@pytest.mark.parametrize("body", ["", "<action/>", "<action><async>true</async></action>"])
def test_an_action_answers_with_its_job(change, path, command, until, body):
    async def scenario(node: Api, made: Furniture):
        answer = await post(node, "/" + path.format(vm=made.vms[1], host=made.host), body)
        assert answer.status_code == 200
        [submission] = node.commands.submissions
        assert submission.name == command
        assert node.commands.awaited == [(until, 7.0)]
        action = ElementTree.fromstring(answer.content)
        assert action.findtext("status") == "complete"
        assert action.find("job").get("id") == str(submission.command_id)
        assert (await node.client.get(action.find("job").get("href"))).status_code == 200

    change(scenario, accept_wait_s=7)


def test_a_vm_is_started_where_the_client_wants(change):
    async def scenario(node: Api, made: Furniture):
        for body in (
            f"<action><host id='{made.host}'/></action>",
            "<action><host><name>H1</name></host></action>",
            "<action><vm><placement_policy><hosts><host><name>h1</name></host></hosts>\
</placement_policy></vm></action>",
        ):
            assert (await post(node, f"/vms/{made.vms[1]}/start", body)).status_code == 200
            assert node.commands.submissions[-1].params["host_id"] == str(made.host)
        answer = await post(
            node, f"/vms/{made.vms[1]}/start", "<action><host><name>x</name></host></action>"
        )
        assert answer.status_code == 400

    change(scenario)


def test_the_reason_of_a_maintenance_is_handed_on(change):
    async def scenario(node: Api, made: Furniture):
        body = "<action><reason>new disk</reason></action>"
        await post(node, f"/hosts/{made.host}/deactivate", body)
        assert node.commands.submissions[-1].params["reason"] == "new disk"

    change(scenario)


def test_an_action_on_what_is_not_there_is_not_found(change):
    async def scenario(node: Api, _made: Furniture):
        for path in (f"/vms/{new_id()}/start", "/vms/x/start", f"/hosts/{new_id()}/activate"):
            answer = await post(node, path, "<action/>")
            assert (answer.status_code, answer.content) == (404, b"")
        assert node.commands.submissions == []

    change(scenario)


def test_an_action_that_takes_longer_is_pending(change):
    async def scenario(node: Api, made: Furniture):
        node.commands.state = "running"
        answer = await post(node, f"/vms/{made.vms[0]}/stop", "<action/>")
        assert answer.status_code == 200
        assert "<status>pending</status>" in answer.text

    change(scenario)


def test_an_add_that_takes_longer_names_the_job_that_tells(change):
    async def scenario(node: Api, _made: Furniture):
        node.commands.state = "running"
        answer = await post(node, "/datacenters", "<data_center><name>d</name></data_center>")
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        job = re.search(rf"{API}/jobs/[0-9a-f-]+", fault(answer))[0]
        assert ElementTree.fromstring((await node.client.get(job)).content).tag == "job"

    change(scenario)


@pytest.mark.parametrize(
    ("raised", "status"),
    [
        (errors.Conflict("VM vm1 is up"), 409),
        (errors.Locked("VM vm1 is locked by node-1"), 409),
        (errors.DatabaseAway("no writable PostgreSQL answers"), 503),
        (errors.OutcomeUnknown("the commit's answer was lost"), 503),
    ],
)
def test_a_refused_command_is_a_fault(change, raised, status):
    async def scenario(node: Api, made: Furniture):
        node.commands.raising = raised
        answer = await post(node, f"/vms/{made.vms[0]}/start", "<action/>")
        assert answer.status_code == status
        assert str(raised) in fault(answer)
        if isinstance(raised, errors.OutcomeUnknown):
            assert f"/jobs/{node.commands.submissions[0].command_id}" in fault(answer)

    change(scenario)


def test_jobs_are_found_by_their_correlation_id(change):
    async def scenario(node: Api, made: Furniture):
        for correlation_id in ("c-1", "c-2"):
            header = {"Correlation-Id": correlation_id}
            await post(node, f"/vms/{made.vms[1]}/start", "<action/>", **header)
        jobs = await node.get("/jobs", search="correlation_id=c-1")
        assert [job.findtext("correlation_id") for job in jobs] == ["c-1"]
        assert jobs[0].findtext("status") == "finished"
        assert jobs[0].find("owner").get("href").startswith(f"{API}/users/")
        assert len(await node.get("/jobs")) == 2
        assert len(await node.get("/jobs", max=1)) == 1
        assert len(await node.get("/jobs", max=1, search="page 3")) == 0
        refused = await node.client.get(f"{API}/jobs", params={"search": "status=started"})
        assert refused.status_code == 400

    change(scenario)


STEP = """
insert into command_step (command_id, number, name, title, kind, state, attempt, ended_at)
values (%(id)s, %(n)s, 'place', 'Choosing a host', %(kind)s, %(state)s, 1, now())
"""


def test_a_job_has_its_steps_below_it(change):
    async def scenario(node: Api, made: Furniture):
        await post(node, f"/vms/{made.vms[1]}/start", "<action/>")
        id_ = node.commands.submissions[0].command_id
        await node.run(STEP, id=id_, n=1, kind="validating", state="finished")
        await node.run(STEP, id=id_, n=2, kind="executing", state="failed")
        steps = await node.get(f"/jobs/{id_}/steps")
        told = [[s.findtext(name) for name in ("number", "type", "status")] for s in steps]
        assert told == [["1", "validating", "finished"], ["2", "executing", "failed"]]
        again = await node.client.get(steps[1].get("href"))
        assert ElementTree.fromstring(again.content).get("id") == steps[1].get("id")
        job = await node.get(f"/jobs/{id_}", follow="steps")
        assert len(job.findall("steps/step")) == 2
        assert (await node.client.get(f"{API}/jobs/{id_}/steps/{new_id()}")).status_code == 404
        assert (await node.client.get(f"{API}/jobs/{new_id()}/steps")).status_code == 404

    change(scenario)


@pytest.mark.parametrize(
    ("method", "path"),
    [("DELETE", "/vms"), ("PUT", "/vms"), ("POST", ""), ("PATCH", "/hosts"), ("POST", "/events")],
)
def test_what_cannot_be_done_here_is_not_allowed(change, method, path):
    async def scenario(node: Api, _made: Furniture):
        answer = await node.client.request(method, API + path)
        assert (answer.status_code, answer.content) == (405, b"")
        assert "GET" in answer.headers["allow"]

    change(scenario)
