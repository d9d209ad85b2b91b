"""Reading through the API: entities, searches, what lies below them, and what is not there."""

from __future__ import annotations

import asyncio
import json

import pytest
from apinode import API, Api, Furniture, api, furnish, run, serving

from engine_pg.db.database import Database
from engine_pg.ids import BLANK_TEMPLATE_ID, new_id


@pytest.fixture(scope="module")
def furniture(database_url) -> Furniture:
    made = []

    async def scenario(node: Api):
        made.append(await furnish(node))
        await furnish(node, "z_")
        for number in range(1, 8):
            await node.run(
                "insert into event (code, severity, description, correlation_id, vm_id, vm_name)"
                " values (32, 'normal', %(text)s, %(correlation)s, %(vm)s, 'vm1')",
                text=f"VM vm1 started, {number}",
                correlation=f"corr-{number % 2}",
                vm=made[0].vms[0],
            )

    run(database_url, scenario)
    return made[0]


@pytest.fixture
def ask(database_url, furniture):
    """Run a scenario on the furnished database."""

    def asked(scenario, **settings):
        async def with_furniture(node: Api):
            await scenario(node, furniture)

        run(database_url, with_furniture, **settings)

    return asked


def test_the_entry_point_tells_what_this_is(ask):
    async def scenario(node: Api, _made: Furniture):
        root = await node.get("")
        version = root.find("product_info/version")
        assert [version.findtext(part) for part in ("major", "minor", "build", "revision")] == [
            "4", "5", "6", "0",
        ]  # fmt: skip
        assert root.findtext("summary/hosts/total") == "2"
        assert root.findtext("summary/vms/active") == "2"
        assert root.findtext("summary/vms/total") == "6"
        assert root.find("special_objects/blank_template").get("id") == str(
            new_id.__class__ and "00000000-0000-0000-0000-000000000000"
        )
        for link in root.findall("link"):
            assert (await node.client.get(link.get("href"))).status_code == 200

    ask(scenario)


@pytest.mark.parametrize(
    ("path", "attribute"),
    [("datacenters", "dc"), ("clusters", "cluster"), ("hosts", "host")],
)
def test_an_entity_is_listed_and_read_alike(ask, path, attribute):
    async def scenario(node: Api, made: Furniture):
        id_ = getattr(made, attribute)
        listed = [e for e in await node.get(f"/{path}") if e.get("id") == str(id_)]
        read = await node.get(f"/{path}/{id_}")
        assert len(listed) == 1
        assert [(e.tag, e.text) for e in listed[0].iter()] == [(e.tag, e.text) for e in read.iter()]
        assert read.get("href") == f"{API}/{path}/{id_}"

    ask(scenario)


def test_every_link_and_reference_leads_somewhere(ask):
    async def scenario(node: Api, made: Furniture):
        paths = [f"/vms/{made.vms[0]}", f"/hosts/{made.host}", f"/clusters/{made.cluster}"]
        paths += [f"/datacenters/{made.dc}", f"/templates/{BLANK_TEMPLATE_ID}"]
        for path in paths:
            entity = await node.get(path)
            hrefs = [element.get("href") for element in entity.iter() if element.get("href")]
            assert len(hrefs) > 8
            for href in hrefs:
                answer = await node.client.get(href)
                assert answer.status_code == 200, href
                assert answer.headers["content-type"] == "application/xml"

    ask(scenario)


def test_a_vm_says_where_it_runs_only_while_it_does(ask):
    async def scenario(node: Api, made: Furniture):
        running = await node.get(f"/vms/{made.vms[0]}")
        assert running.findtext("status") == "powering_up"
        assert running.find("host").get("href") == f"{API}/hosts/{made.host}"
        down = await node.get(f"/vms/{made.vms[1]}")
        assert down.find("host") is None
        assert down.findtext("delete_protected") == "true"
        assert down.findtext("memory_policy/guaranteed") == str(2 << 30)
        assert (down.findtext("description"), down.findtext("comment")) == ("", "")

    ask(scenario)


@pytest.mark.parametrize(
    ("search", "names"),
    [
        ("name=vm1", ["vm1"]),
        ("name=VM1", ["vm1"]),
        ("name=vm*", ["vm1", "vm2", "vm3"]),
        ('name="vm1" or name=vm3', ["vm1", "vm3"]),
        ("name=v_1", []),
        ("name=v%", []),
        ("name!=vm1 and cluster=c1", ["vm2", "vm3"]),
        ("status=PoweringUp cluster=c1", ["vm1"]),
        ("status=powering_up cluster=c1", ["vm1"]),
        ("(status = down OR status = up) and datacenter=dc1", ["vm2", "vm3"]),
        ("host=h1", ["vm1"]),
        ("host.name=h1", ["vm1"]),
        ("host.status=up name=vm*", ["vm1"]),
        ("host!=h1 cluster=c1", ["vm2", "vm3"]),
        ("memory>1024 cluster=c1", ["vm2", "vm3"]),
        ("memory>=1024 and memory<3072 cluster=c1", ["vm1", "vm2"]),
        ("memory!=1024 cluster=c1", ["vm2", "vm3"]),
        ("template.name=Blank cluster=c1", ["vm1", "vm2", "vm3"]),
        ("template=Blank cluster=c1", ["vm1", "vm2", "vm3"]),
        ("event.type=32", ["vm1"]),
        ("tag=x", []),
        ("tag!=x cluster=c1", ["vm1", "vm2", "vm3"]),
        ("vm2", ["vm2", "z_vm2"]),
        ("unheard.of=x", []),
        ("name=vm* sortby memory desc", ["vm3", "vm2", "vm1"]),
        ("name=vm* sortby name desc page 1", ["vm3", "vm2", "vm1"]),
        ("name=vm* sortby host", ["vm1", "vm2", "vm3"]),
        ("creation_date>=today cluster=c1", ["vm1", "vm2", "vm3"]),
        ("creation_date=today cluster=c1", ["vm1", "vm2", "vm3"]),
        ("creation_date<yesterday", []),
        ("creation_date>2001-01-01 name=vm1", ["vm1"]),
        ('creation_date<"2001-01-01T10:00:00Z"', []),
        ("creation_date<01/31/2001", []),
        ("", ["vm1", "vm2", "vm3", "z_vm1", "z_vm2", "z_vm3"]),
    ],
)
def test_a_search_finds_vms(ask, search, names):
    async def scenario(node: Api, _made: Furniture):
        assert await node.names("/vms", search=search) == names

    ask(scenario)


@pytest.mark.parametrize(
    ("path", "search", "names"),
    [
        ("/hosts", "address=h1", ["h1"]),
        ("/hosts", "vm.name=z_vm1", ["z_h1"]),
        ("/hosts", "memory=16384 cluster=c1 datacenter=dc1 cpus=8", ["h1"]),
        ("/hosts", "status!=up", []),
        ("/clusters", "datacenter=dc1", ["c1"]),
        ("/clusters", "datacenter.name=dc1 vm.name=vm2 host.name=h1", ["c1"]),
        ("/datacenters", 'name="dc1"', ["dc1"]),
        ("/datacenters", "cluster.name=c1", ["dc1"]),
        ("/templates", "name=Blank and datacenter=dc1", ["Blank"]),
        ("/templates", "vm.name=vm1", ["Blank"]),
        ("/templates", "name=other", []),
        ("/templates", "datacenter=nowhere", []),
    ],
)
def test_a_search_finds_other_things(ask, path, search, names):
    async def scenario(node: Api, _made: Furniture):
        assert await node.names(path, search=search) == names

    ask(scenario)


def test_case_matters_on_request(ask):
    async def scenario(node: Api, _made: Furniture):
        assert await node.names("/vms", search="name=VM1", case_sensitive="true") == []
        assert await node.names("/vms", search="name=vm1", case_sensitive="true") == ["vm1"]
        assert await node.names("/vms", search="name=VM1", case_sensitive="false") == ["vm1"]

    ask(scenario)


def test_lists_come_in_pages(ask):
    async def scenario(node: Api, _made: Furniture):
        pages = [await node.names("/vms", search=f"page {n}", max=4) for n in (1, 2, 3)]
        assert [len(page) for page in pages] == [4, 2, 0]
        assert len({name for page in pages for name in page}) == 6
        assert await node.names("/vms", max=0) == []
        assert len(await node.names("/vms", max=-1)) == 6
        assert len(await node.names("/vms", search="page 1000000", max=10_000)) == 0

    ask(scenario)


@pytest.mark.parametrize(
    "params",
    [
        {"search": "name='x'"},
        {"search": "(name=x"},
        {"search": "name=\x00"},
        {"search": "memory=999999999999999999999999"},
        {"search": "sortby nothing"},
        {"search": "creation_date>9999-12-31"},
        {"search": "creation_date>99999-12-31"},
        {"max": "many"},
        {"max": "\u0661"},
        {"follow": "../.."},
        {"follow": "a.b.c.d.e.f"},
    ],
)
def test_what_cannot_be_searched_for_is_a_fault(ask, params):
    async def scenario(node: Api, _made: Furniture):
        answer = await node.client.get(f"{API}/vms", params=params)
        assert answer.status_code == 400
        assert "<fault>" in answer.text

    ask(scenario)


def test_injected_sql_is_only_text(ask):
    async def scenario(node: Api, _made: Furniture):
        for text in ('name="x\\"', 'name="%"', 'name="x) or (1=1"', '")--"', "name=$$x$$ --"):
            assert await node.names("/vms", search=text) == []
        assert len(await node.names("/vms")) == 6

    ask(scenario)


@pytest.mark.parametrize("path", ["datacenters", "clusters", "hosts", "vms", "jobs", "templates"])
@pytest.mark.parametrize(
    "id_", ["0197f1a2-5b7d-7e8f-9a01-23456789abcd", "x", "1", "%00", "{id}", "a" * 500]
)
def test_an_unknown_or_impossible_id_is_not_found(ask, path, id_):
    async def scenario(node: Api, _made: Furniture):
        for method in ("GET", "PUT", "DELETE"):
            answer = await node.client.request(method, f"{API}/{path}/{id_}")
            if answer.status_code != 405:
                assert (answer.status_code, answer.content) == (404, b"")
        assert node.commands.submissions == []

    ask(scenario)


def test_below_what_is_not_there_is_nothing(ask):
    async def scenario(node: Api, made: Furniture):
        for path in (
            f"/vms/{new_id()}/nics",
            f"/vms/{made.vms[0]}/unheard",
            f"/vms/{made.vms[0]}/nics/{new_id()}",
            f"/hosts/{made.host}/statistics/{new_id()}",
            "/unheard",
        ):
            answer = await node.client.get(API + path)
            assert (answer.status_code, answer.content) == (404, b""), path

    ask(scenario)


def test_statistics_of_a_host_are_measured(ask):
    async def scenario(node: Api, made: Furniture):
        found = await node.get(f"/hosts/{made.host}/statistics")
        values = {s.findtext("name"): s.findtext("values/value/datum") for s in found}
        assert values["memory.used"] == str(10 << 30)
        assert values["cpu.current.idle"] == "87.5"
        again = await node.client.get(found[0].get("href"))
        assert again.text.startswith("<?xml")
        assert found[0].findtext("name") in again.text

    ask(scenario)


def test_clusters_of_a_data_center_are_below_it(ask):
    async def scenario(node: Api, made: Furniture):
        assert await node.names(f"/datacenters/{made.dc}/clusters") == ["c1"]
        read = await node.get(f"/datacenters/{made.dc}/clusters/{made.cluster}")
        assert read.findtext("name") == "c1"

    ask(scenario)


def test_references_and_links_are_followed(ask):
    async def scenario(node: Api, made: Furniture):
        follow = "cluster.data_center,host.statistics,disk_attachments,template,unheard"
        vm = await node.get(f"/vms/{made.vms[0]}", follow=follow)
        assert vm.findtext("cluster/data_center/name") == "dc1"
        assert len(vm.findall("host/statistics/statistic")) == 6
        assert vm.find("disk_attachments") is not None
        assert vm.findtext("template/name") == "Blank"
        vms = await node.get("/vms", follow="cluster,host")
        assert [vm.findtext("cluster/name") for vm in vms] == ["c1"] * 3 + ["z_c1"] * 3
        assert vms[1].find("host") is None
        assert await node.get("/vms", follow="", search="") is not None

    ask(scenario)


def test_following_asks_the_database_nothing(ask):
    async def scenario(node: Api, _made: Furniture):
        asked = []
        before = node.db.read

        def counted():
            asked.append(1)
            return before()

        node.db.read = counted
        await node.get("/vms", follow="cluster.data_center")
        assert asked == []

    ask(scenario)


def test_the_newest_event_comes_first_and_from_an_index_on_the_oldest(ask):
    async def scenario(node: Api, _made: Furniture):
        newest = [int(event.get("id")) for event in await node.get("/events", max=3)]
        assert newest == sorted(newest, reverse=True)
        after = newest[-1] - 2
        events = [int(event.get("id")) for event in await node.get("/events", **{"from": after})]
        assert events == sorted(events)
        assert min(events) == after + 1
        assert set(newest) <= set(events)
        first_two = await node.get("/events", **{"from": after, "max": 2})
        assert [int(event.get("id")) for event in first_two] == events[:2]
        assert len(await node.get("/events", **{"from": newest[0]})) == 0

    ask(scenario)


@pytest.mark.parametrize(
    ("search", "count"),
    [
        ("type=32", 7),
        ("type=33", 0),
        ("severity=normal and message=VM*", 7),
        ("correlation_id=corr-1", 4),
        ("event_vm=vm1 sortby time asc", 7),
        ("vm.name=vm1", 7),
        ("host.name=h1", 0),
        ("time>Yesterday", 7),
    ],
)
def test_events_are_searched(ask, search, count):
    async def scenario(node: Api, _made: Furniture):
        assert len(await node.get("/events", search=search)) == count

    ask(scenario)


def test_an_event_names_what_it_is_about(ask):
    async def scenario(node: Api, made: Furniture):
        event = (await node.get("/events", max=1))[0]
        again = await node.get(f"/events/{event.get('id')}")
        assert again.findtext("index") == event.get("id")
        assert again.find("vm").get("id") == str(made.vms[0])
        assert again.findtext("vm/name") == "vm1"
        for id_ in ("999999999", "x", "-1", "99999999999999999999999"):
            assert (await node.client.get(f"{API}/events/{id_}")).status_code == 404

    ask(scenario)


def test_there_is_always_an_event(fresh_database_url):
    async def scenario(node: Api):
        events = await node.get("/events", max=1)
        assert events[0].get("id") == "0"
        assert (await node.get("/events/0")).findtext("description")
        assert len(await node.get("/events", search="type=32")) == 0
        assert len(await node.get("/events", max=0)) == 0

    run(fresh_database_url, scenario)


def test_json_says_the_same(ask):
    async def scenario(node: Api, made: Furniture):
        answer = await node.client.get(
            f"{API}/vms/{made.vms[1]}", headers={"Accept": "application/json"}
        )
        assert answer.headers["content-type"] == "application/json"
        vm = answer.json()
        assert vm["id"] == str(made.vms[1])
        assert vm["memory"] == str(2 << 30)
        assert vm["delete_protected"] == "true"
        assert vm["os"]["boot"]["devices"] == {"device": ["hd"]}
        listed = await node.client.get(f"{API}/vms", params={"accept": "json"})
        assert len(json.loads(listed.content)["vm"]) == 6

    ask(scenario)


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("", "xml"),
        ("*/*", "xml"),
        ("text/html,application/xml;q=0.9,*/*;q=0.8", "xml"),
        ("application/json;q=0.5, application/xml", "xml"),
        ("application/xml;q=0.5, application/json", "json"),
        ("application/json; q=x, application/xml", "xml"),
    ],
)
def test_xml_is_spoken_unless_json_is_preferred(ask, accept, media):
    async def scenario(node: Api, _made: Furniture):
        answer = await node.client.get(API, headers={"Accept": accept})
        assert answer.headers["content-type"] == f"application/{media}"

    ask(scenario)


def test_long_answers_are_compressed_when_offered(ask):
    async def scenario(node: Api, _made: Furniture):
        plain = await node.client.get(f"{API}/vms", headers={"Accept-Encoding": "identity"})
        assert "content-encoding" not in plain.headers
        small = await node.client.get(f"{API}/vms", headers={"Accept-Encoding": "gzip"})
        assert small.headers["content-encoding"] == "gzip"
        assert small.text == plain.text

    ask(scenario)


def test_references_begin_as_the_client_s_url_does(ask):
    async def scenario(node: Api, made: Furniture):
        answer = await node.client.get("/ovirt-engine/api/v4//vms/")
        assert f'href="{API}/v4/vms/{made.vms[0]}"' in answer.text
        assert 'href="/ovirt-engine/api/vms' not in answer.text
        follow = await node.client.get("/ovirt-engine/api/v4/vms", params={"follow": "cluster"})
        assert "<name>z_c1</name>" in follow.text

    ask(scenario)


def test_users_can_be_read_without_their_secrets(ask):
    async def scenario(node: Api, _made: Furniture):
        me = await node.get("/users/me")
        assert me.findtext("user_name") == "admin@internal"
        assert (await node.client.get(me.get("href"))).status_code == 200
        listed = await node.client.get(f"{API}/users")
        assert "argon2" not in listed.text
        assert (await node.client.get(f"{API}/users/{new_id()}")).status_code == 404

    ask(scenario)


def test_the_process_tells_how_it_is(ask):
    async def scenario(node: Api, _made: Furniture):
        del node.client.headers["Authorization"]
        assert (await node.client.get("/healthz")).json() == {"status": "alive"}
        ready = await node.client.get("/readyz")
        assert (ready.status_code, ready.json()) == (200, {"status": "ready", "reasons": []})
        await node.client.get("/nothing")
        lines = (await node.client.get("/metrics")).text.splitlines()
        assert 'engine_vms{status="down"} 4' in lines
        assert 'engine_hosts{status="up"} 2' in lines
        assert "engine_database_answers 1" in lines
        assert any(
            line.startswith('engine_api_requests_total{method="GET",route="none"') for line in lines
        )

    ask(scenario)


def test_a_node_that_leaves_in_order_can_be_told_from_one_that_is_not_ready(database_url):
    async def story():
        leaving: list[str] = []
        wired = {"leaving": lambda: "".join(leaving)}
        async with Database(database_url) as db, serving(db, wired=wired) as node:
            asked = "/readyz?leaving=404"
            assert (await node.client.get(asked)).status_code == 200
            node.reasons.append("no lease")
            assert (await node.client.get(asked)).status_code == 503
            leaving.append("the node stops")
            assert (await node.client.get(asked)).status_code == 404
            assert (await node.client.get("/readyz")).status_code == 503
            assert (await node.client.get("/readyz?leaving=200")).status_code == 400

    asyncio.run(story())


def test_a_node_that_is_not_ready_says_why(database_url):
    async def scenario(node: Api):
        node.reasons.append("no lease")
        answer = await node.client.get("/readyz")
        assert (answer.status_code, answer.json()["reasons"]) == (503, ["no lease"])
        node.reasons.clear()
        assert (await node.client.get("/readyz")).status_code == 200

    run(database_url, scenario)


def test_the_live_view_shows_everything_at_once(ask):
    async def scenario(node: Api, _made: Furniture):
        view = (await node.client.get("/api/v1/status")).json()
        assert view.keys() == {
            "stale_s", "summary", "nodes", "leaders", "locks", "hosts", "vms", "commands", "events",
        }  # fmt: skip
        assert view["vms"] == {"down": 4, "powering_up": 2}
        assert [(h["name"], h["status"], h["vms"]) for h in view["hosts"]] == [
            ("h1", "up", 1), ("z_h1", "up", 1),
        ]  # fmt: skip
        assert view["events"][0].keys() == {"at", "severity", "description"}

    ask(scenario)


def test_without_a_database_there_is_a_fault_and_a_hint_to_come_back(database_url):
    async def scenario():
        async with (
            Database("postgresql://127.0.0.1:1/nowhere", away_s=0.1) as away,
            api(database_url) as known,
            serving(away) as node,
        ):
            node.client.headers["Authorization"] = known.client.headers["Authorization"]
            for path in (API, f"{API}/vms", "/api/v1/status"):
                answer = await node.client.get(path)
                assert answer.status_code == 503
                assert answer.headers["retry-after"]
                told = answer.json()["error"] if "v1" in path else answer.text
                assert "no writable PostgreSQL" in told
                assert ("<fault>" in told) == ("v1" not in path)
            login = await node.login()
            assert (login.status_code, login.json()["error_code"]) == (503, "server_error")
            assert (await node.client.get("/healthz")).status_code == 200
            assert "engine_database_answers 0" in (await node.client.get("/metrics")).text

    asyncio.run(scenario())
