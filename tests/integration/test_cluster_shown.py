"""What operators see of real members that lead, hold, wait and pause."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable

import pytest
from apinode import api
from integration.nodes import TestNode, eventually, node, run
from typer.testing import CliRunner

from engine_pg.cli import main
from engine_pg.cluster.locks import LockKey, Mode, Reason, Wanted
from engine_pg.cluster.waits import KeyMode, Party, Request
from engine_pg.errors import Conflict, DatabaseAway
from engine_pg.ids import new_id

MEMBER_KEYS = {
    "node", "member_id", "state", "draining", "weight", "epoch_id", "resumed", "session_number",
    "renewal", "age_s", "ttl_s", "leaderships", "locks", "waiting", "commands", "address",
    "version", "joined_at", "ended_at", "end_reason",
}  # fmt: skip
LEADER_KEYS = {
    "name", "node", "member_id", "term", "acquired_at", "age_s", "held", "placement",
}  # fmt: skip
LOCK_KEYS = {
    "kind", "id", "mode", "token", "node", "member_id", "command_id", "command", "user_name",
    "reason", "granted_at", "age_s", "advisory_held", "unresumed", "broken_at", "broken_by",
}  # fmt: skip
PARTY_KEYS = {"member_id", "node", "command_id", "command", "user_name", "reason", "age_s"}
WAITER_KEYS = PARTY_KEYS | {"ticket", "keys", "waits_for"}
TARGET_KEYS = PARTY_KEYS | {"kind", "id", "mode", "token", "ticket", "how"}
STATUS_KEYS = {
    "epoch": {"id", "timeline", "since"},
    "members": {"live", "paused", "draining", "unresumed"},
    "leaders": {"declared", "exactly_one", "vacant"},
    "locks": {"held", "orphaned", "parked", "unresumed", "broken", "oldest_s"},
    "waiters": {"requests", "oldest_s"},
    "lock_table": {"used", "capacity", "alarming"},
}
TICKET = """
insert into lock_ticket (ticket, kind, id, mode, member_id, command_id, user_name, reason)
values (%(ticket)s, 'vm', %(id)s, %(mode)s, %(member)s, %(command)s, 'somebody', 'waits')
"""
COMMAND = """
insert into command (command_id, name, description, subject_kind, subject_id, member_id)
values (%(id)s, 'start_vm', 'Starting VM a', 'vm', %(id)s, %(member)s)
"""


@pytest.fixture
def call(fresh_database_url, monkeypatch):
    """Call the command line while members live; what it raises is raised."""
    monkeypatch.setenv("ENGINE_DATABASE_URL", fresh_database_url)
    monkeypatch.setenv("COLUMNS", "200")

    def called(*words: object) -> str:
        result = CliRunner().invoke(main.app, [str(word) for word in words])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output

    async def in_thread(*words: object) -> str:
        return await asyncio.to_thread(called, *words)

    return in_thread


async def told(call: Callable[..., Awaitable[str]], *words: object) -> dict:
    return json.loads(await call(*words, "--json"))


def vm(id_: str, mode: Mode = Mode.EXCLUSIVE) -> Wanted:
    return Wanted(LockKey("vm", id_), mode)


async def ticket(one: TestNode, number: int, id_: str, mode="exclusive", command=None) -> None:
    params = {"ticket": number, "id": id_, "mode": mode, "member": one.member_id}
    await one.db.statement(TICKET, params | {"command": command})


async def led(_leadership) -> None:
    await asyncio.Event().wait()


def test_members_are_listed_with_what_they_lead_hold_and_run(fresh_database_url, call):
    async def story():
        async with node(fresh_database_url, "a", singletons={"one": led}) as a:
            await a.locks.acquire(vm("1"), vm("2"))
            await a.db.statement(COMMAND, {"id": new_id(), "member": a.member_id})
            await ticket(a, 1, "3")
            async with node(fresh_database_url, "b"):
                await eventually(lambda: a.rows("select from leader where member_id is not null"))
                [first, second] = (await told(call, "members"))["members"]
                assert set(first) == set(second) == MEMBER_KEYS
                assert (first["node"], first["member_id"]) == ("a", str(a.member_id))
                assert (first["state"], first["resumed"], first["draining"]) == (
                    "live",
                    True,
                    False,
                )
                counts = ("leaderships", "locks", "waiting", "commands")
                assert [first[name] for name in counts] == [1, 2, 1, 1]
                assert [second[name] for name in counts] == [0, 0, 0, 0]
                assert first["renewal"] > 0
                assert 0 <= first["age_s"] < 1
                assert "live" in await call("members")
                [only] = (await told(call, "members", "--node", "b"))["members"]
                assert only["node"] == "b"
            ended = (await told(call, "members"))["members"][1]
            assert (ended["node"], ended["state"], ended["end_reason"]) == ("b", "ended", "stopped")

    run(story())


def test_leaders_are_listed_and_a_vacant_name_is_told(fresh_database_url, call):
    async def story():
        async with node(fresh_database_url, "a", singletons={"one": led, "two": led}) as a:
            await eventually(lambda: a.rows("select from leader where member_id is not null"))
            await a.db.statement("insert into leader (name) values ('nobody')")
            leaders = {each["name"]: each for each in (await told(call, "leaders"))["leaders"]}
            assert set(leaders) == {"nobody", "one", "two"}
            assert set(leaders["one"]) == LEADER_KEYS
            assert (leaders["one"]["node"], leaders["one"]["held"]) == ("a", True)
            assert (leaders["nobody"]["node"], leaders["nobody"]["held"]) == (None, False)
            assert "vacant" in await call("leaders")
            status = await told(call, "status")
            assert status["leaders"]["vacant"][:1] == ["nobody"]
            assert status["leaders"]["exactly_one"] is False
            assert any("nobody leads nobody" in warning for warning in status["warnings"])
            assert "Warning: nobody leads nobody" in await call("status")

    run(story())


def test_locks_are_listed_with_holder_command_and_reason(fresh_database_url, call):
    async def story():
        async with node(fresh_database_url, "a") as a, node(fresh_database_url, "b") as b:
            command = new_id()
            await a.db.statement(COMMAND, {"id": command, "member": a.member_id})
            hold = await a.locks.acquire(vm("1"), reason=Reason("why", "somebody", command))
            await b.locks.acquire(vm("2", Mode.SHARED), reason=Reason("looks at it"))
            [first, second] = (await told(call, "locks"))["locks"]
            assert set(first) == set(second) == LOCK_KEYS
            assert (first["kind"], first["id"], first["mode"]) == ("vm", "1", "exclusive")
            assert (first["node"], first["user_name"], first["reason"]) == ("a", "somebody", "why")
            assert (first["command"], first["command_id"]) == ("Starting VM a", str(command))
            assert (first["token"], first["advisory_held"]) == (hold.grants[0].token, True)
            assert (second["mode"], second["command"], second["unresumed"]) == (
                "shared",
                None,
                False,
            )
            shown = await call("locks")
            assert "Starting VM a" in shown
            assert "looks at it" in shown
            for words, ids in [
                (["--id", "2"], ["2"]),
                (["--kind", "host"], []),
                (["--node", "a"], ["1"]),
                (["--max", "1"], ["1"]),
            ]:
                found = (await told(call, "locks", *words))["locks"]
                assert [each["id"] for each in found] == ids

    run(story())


def test_orphaned_unresumed_and_broken_locks_are_told(fresh_database_url, call):
    async def story():
        async with node(fresh_database_url, "a") as a:
            for id_ in ("orphaned", "broken"):
                await a.locks.acquire(vm(id_), reason=Reason(command_id=new_id()))
            await a.db.statement("update lock_grant set member_id = null where id = 'orphaned'")
            await a.db.statement(
                "update lock_grant set broken_at = now(), broken_by = 'x' where id = 'broken'"
            )
            await a.db.statement(
                "insert into cluster_epoch select epoch_id + 1, system_identifier, timeline,"
                " postmaster_started_at, gen_random_uuid() from cluster_epoch"
            )
            locks = {each["id"]: each for each in (await told(call, "locks"))["locks"]}
            assert locks["orphaned"]["node"] is None
            assert locks["broken"]["unresumed"] is True
            shown = await call("locks")
            assert "nobody runs its command now" in shown
            assert "broken by x, not resumed in this epoch" in shown
            counted = (await told(call, "status"))["locks"]
            assert [counted[k] for k in ("held", "orphaned", "unresumed", "broken")] == [2, 1, 1, 1]
            [member] = (await told(call, "members"))["members"]
            assert member["resumed"] is False
            await a.db.statement("delete from lock_grant")

    run(story())


def test_waiters_are_listed_in_their_order_with_whom_they_wait_for(fresh_database_url, call):
    async def story():
        async with node(fresh_database_url, "a") as a, node(fresh_database_url, "b") as b:
            hold = await a.locks.acquire(vm("1"), reason=Reason("holds it", "holder"))
            await ticket(b, 8, "1")
            await ticket(b, 9, "1")
            [first, second] = (await told(call, "waiters"))["waiters"]
            assert set(first) == WAITER_KEYS
            assert (first["ticket"], first["node"], first["reason"]) == (8, "b", "waits")
            assert first["keys"] == [{"kind": "vm", "id": "1", "mode": "exclusive"}]
            [target] = first["waits_for"]
            assert set(target) == TARGET_KEYS
            assert (target["how"], target["node"], target["reason"]) == ("holds", "a", "holds it")
            assert target["token"] == hold.grants[0].token
            assert [each["how"] for each in second["waits_for"]] == ["holds", "waits ahead"]
            assert second["waits_for"][1]["ticket"] == 8
            shown = await call("waiters")
            assert "a holds exclusive" in shown
            assert "b waits ahead, ticket 8" in shown
            assert (await told(call, "waiters", "--id", "2"))["waiters"] == []
            status = await told(call, "status")
            assert status["waiters"]["requests"] == 2

    run(story())


def test_commands_that_wait_for_each_other_are_told(fresh_database_url, call):
    async def story():
        async with node(fresh_database_url, "a") as a, api(fresh_database_url) as web:
            one, two = new_id(), new_id()
            await a.locks.acquire(vm("1"), reason=Reason(command_id=one))
            await a.locks.acquire(vm("2"), reason=Reason(command_id=two))
            await ticket(a, 1, "2", command=one)
            graph = (await web.client.get("/api/v1/waitgraph")).json()
            assert graph["cycles"] == []
            await ticket(a, 2, "1", command=two)
            graph = (await web.client.get("/api/v1/waitgraph")).json()
            assert set(graph) == {"agents", "edges", "cycles"}
            [cycle] = graph["cycles"]
            assert cycle["certain"] is True
            assert {each["id"] for each in cycle["agents"]} == {str(one), str(two)}
            assert "these commands wait for each other" in await call("waiters")

    run(story())


def test_a_member_that_does_not_renew_is_told_as_paused(fresh_database_url, call):
    async def story():
        async with node(fresh_database_url, "a") as a:
            await a.locks.acquire(vm("1"))
            status = await told(call, "status")
            assert {key: set(status[key]) for key in STATUS_KEYS} == STATUS_KEYS
            assert status["members"] == {"live": 1, "paused": 0, "draining": 0, "unresumed": 0}
            assert status["lock_table"]["capacity"] > status["lock_table"]["used"] > 0
            assert status["warnings"] == []
            await a.die()  # nobody else is there to end it

            async def paused():
                status = await told(call, "status")
                return status["members"]["paused"] == 1 and status["warnings"]

            [warning] = await eventually(paused)
            assert "a has not renewed its lease" in warning
            assert "paused" in await call("members")

    run(story())


@pytest.mark.usefixtures("call")
def test_a_watch_shows_changes_until_it_is_stopped(fresh_database_url):
    async def story():
        async with node(fresh_database_url, "a") as a:
            words = ["-m", "engine_pg", "locks", "--watch", "--every", "0.1", "--json"]
            process = await asyncio.create_subprocess_exec(
                sys.executable, *words, stdout=asyncio.subprocess.PIPE
            )
            assert process.stdout is not None
            assert json.loads(await process.stdout.readline()) == {"locks": []}
            await a.locks.acquire(vm("1"))
            while not json.loads(await process.stdout.readline())["locks"]:
                pass
            process.send_signal(2)
            assert await process.wait() == 0

    run(story())


def test_a_database_that_is_empty_or_away_is_one_sentence(empty_database_url, monkeypatch, capfd):
    monkeypatch.setenv("ENGINE_DATABASE_URL", empty_database_url)
    for name in ("status", "members", "leaders", "locks", "waiters"):
        result = CliRunner().invoke(main.app, [name])
        assert isinstance(result.exception, Conflict)
        assert "run `engine-pg db upgrade` first" in str(result.exception)
    monkeypatch.setenv("ENGINE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    result = CliRunner().invoke(main.app, ["status"])
    assert isinstance(result.exception, DatabaseAway)
    assert capfd.readouterr().err == ""


def test_rest_answers_what_the_command_line_shows(fresh_database_url):
    async def story():
        async with node(fresh_database_url, "a", singletons={"one": led}) as a:
            await eventually(lambda: a.rows("select from leader where member_id is not null"))
            await a.locks.acquire(vm("1"))
            await ticket(a, 1, "1")
            async with api(fresh_database_url) as web:

                async def got(path: str, **params: object) -> dict:
                    answer = await web.client.get(f"/api/v1/{path}", params=params)
                    assert answer.status_code == 200, answer.text
                    return answer.json()

                for name, keys in [
                    ("members", MEMBER_KEYS),
                    ("leaders", LEADER_KEYS),
                    ("locks", LOCK_KEYS),
                    ("waiters", WAITER_KEYS),
                ]:
                    [row] = (await got(name))[name]
                    assert set(row) == keys
                summary = (await got("status"))["summary"]
                assert {key: set(summary[key]) for key in STATUS_KEYS} == STATUS_KEYS
                assert (await got("locks", kind="vm", id="1", node="a", max=5))["locks"]
                assert (await got("locks", kind="host")) == {"locks": []}
                assert (await got("members", node="b", ended="true")) == {"members": []}
                assert (await got("leaders", name="two")) == {"leaders": []}
                assert (await got("waiters", node="b")) == {"waiters": []}

    run(story())


WRONG = {
    "max=0": "max should be from 1 to 10000, not 0",
    "max=many": "max should be from 1 to 10000, not many",
    "kind=": "kind should be a text of 1 to",
    "name=x": "There is no parameter name here; there are: kind, id, node, max",
    "kind=a&kind=b": "kind is given more than once",
}


def test_what_rest_refuses_is_told_in_json(fresh_database_url):
    async def story():
        async with api(fresh_database_url) as web:

            async def refused(path: str, method: str = "GET", **more) -> tuple[int, str]:
                answer = await web.client.request(method, f"/api/v1/{path}", **more)
                assert answer.headers["content-type"] == "application/json"
                assert answer.json()["status"] == answer.status_code
                return answer.status_code, answer.json()["error"]

            for query, said in WRONG.items():
                status, error = await refused(f"locks?{query}")
                assert (status, said in error) == (400, True), error
            assert (await refused("members?ended=perhaps"))[0] == 400
            assert await refused("nothing") == (404, "Not Found")
            assert await refused("locks", "PUT") == (405, "Method Not Allowed")
            web.client.headers.pop("Authorization")
            for name in ("status", "members", "leaders", "locks", "waiters", "waitgraph"):
                assert (await refused(name))[0] == 401
            answer = await web.client.get("/api/v1/locks", headers={"Accept": "application/xml"})
            assert answer.headers["WWW-Authenticate"].startswith("Basic")
            assert answer.json()["status"] == 401

    run(story())


def test_requests_without_a_ticket_are_part_of_their_own_nodes_graph(fresh_database_url):
    async def story():
        async with node(fresh_database_url, "a") as a:
            await a.locks.acquire(vm("1"))
            by = Party(a.member_id, "a", reason="asks here", age_s=0.5)
            local = [Request((KeyMode("vm", "1", "exclusive"),), by)]
            async with api(fresh_database_url, wired={"waiting": lambda: local}) as web:
                [waiter] = (await web.client.get("/api/v1/waiters")).json()["waiters"]
                assert (waiter["ticket"], waiter["reason"]) == (None, "asks here")
                assert [each["how"] for each in waiter["waits_for"]] == ["holds"]
                graph = (await web.client.get("/api/v1/waitgraph")).json()
                assert [edge["from_ticket"] for edge in graph["edges"]] == [None]

    run(story())


def test_metrics_tell_of_the_cluster_and_of_the_node(fresh_database_url):
    async def story():
        singletons = {"one": led}
        async with node(fresh_database_url, "a", singletons=singletons) as a:
            await eventually(lambda: a.rows("select from leader where member_id is not null"))
            await a.locks.acquire(vm("1"), vm("2"))
            waits = asyncio.ensure_future(a.locks.acquire(vm("1"), vm("2"), wait_s=None))
            await eventually(lambda: a.rows("select from lock_ticket"))
            measures = a.membership.measures
            measures.wait_s.add("told", 0.02)
            measures.hold_s.add("told", 20.0)
            measures.refused("told")
            await cut_session(a)
            wired = {"measures": measures, "standing": lambda: a.membership.standing}
            async with api(fresh_database_url, wired=wired) as web:
                lines = (await web.client.get("/metrics")).text.splitlines()
            values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
            for name, value in {
                'engine_members{state="live"}': 1,
                'engine_members{state="paused"}': 0,
                'engine_leaders{name="one"}': 1,
                'engine_leader_term{name="one"}': 1,
                "engine_exactly_one_leader": 1,
                'engine_locks{kind="vm"}': 2,
                'engine_lock_tickets{kind="vm"}': 2,
                "engine_lock_waiters": 1,
                'engine_node_lock_wait_seconds_bucket{kind="told",le="0.01"}': 0,
                'engine_node_lock_wait_seconds_bucket{kind="told",le="0.05"}': 1,
                'engine_node_lock_hold_seconds_sum{kind="told"}': 20,
                'engine_node_lock_refusals_total{kind="told"}': 1,
                "engine_node_resumes_total": 1,
                'engine_node_endings_total{how="own"}': 0,
                "engine_node_locks_held": 2,
                "engine_node_locks_limit": 5000,
                "engine_node_locks_waiting": 0,
            }.items():
                assert float(values[name]) == value, name
            assert float(values["engine_node_heartbeat_seconds_count"]) > 1
            assert float(values['engine_node_batch_size_bucket{le="+Inf"}']) > 1
            assert 0 < float(values["engine_node_trusted_seconds"]) < 1
            assert float(values["engine_lock_table_capacity"]) > 1000
            assert float(values["engine_lock_table_used"]) > 0
            assert float(values['engine_node_lock_wait_seconds_count{kind="vm"}']) == 2
            waits.cancel()
            await asyncio.wait([waits])

    run(story())


async def cut_session(one: TestNode) -> None:
    """Terminate the backend of a lock session, and wait until it is resumed."""
    await one.db.statement(
        "select pg_terminate_backend(backend_pid) from member where member_id = %(id)s",
        {"id": one.member_id},
    )

    async def resumed():
        return one.membership.measures.resumes

    await eventually(resumed)


def test_pauses_and_endings_are_measured(fresh_database_url):
    async def story():
        async with node(fresh_database_url, "a") as a, node(fresh_database_url, "b") as b:
            await eventually(lambda: settled(b.membership.measures.renewal_s.count > 1))
            await b.die()

            async def buried():
                return a.membership.measures.endings.get("other")

            assert await eventually(buried) == 1
            keeper = a.session
            keeper.trusted_until -= 5  # as if it had slept
            await eventually(lambda: settled(a.membership.measures.pause_s.count))
            assert a.membership.measures.pause_s.total > 3

    run(story())


async def settled(value: object) -> object:
    return value
