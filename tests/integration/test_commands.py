"""Commands against real hosts: what they do, what they undo, and who goes on when a node dies."""

from __future__ import annotations

import asyncio
import runpy
from pathlib import Path

import pytest
from integration import engines
from integration.engines import Crashing, engine, simulated
from integration.nodes import eventually, run

from engine_pg.errors import EngineError
from engine_pg.hosts.vdsm.client import VdsmDriver

EXAMPLE = Path(__file__).resolve().parents[2] / "docs/how-to/examples/retire_vm.py"
GRANTS = "select count(*) as n from lock_grant"


@pytest.fixture(scope="module", params=["all", "none"])
def hosts(request):
    with simulated(request.param) as simulator:
        yield simulator
        verdict = simulator.verdict()
        assert verdict.clean, verdict.violations


def test_the_example_of_the_how_to_retires_a_vm_or_leaves_it_as_it_was(database_url, hosts):
    async def story():
        example = runpy.run_path(str(EXAMPLE))["RETIRE_VM"]
        async with engine(database_url, "a", more={example.name: example}) as a:
            cluster, _ = await a.furnish(hosts)
            vm = await a.vm(cluster, description="a good one")
            assert "does not run" in (await a.do("retire_vm", vm)).error
            assert (await a.row("vm", vm))["description"] == "a good one"
            assert (await a.do("start_vm", vm)).state == "succeeded"
            retired = await a.do("retire_vm", vm)
            assert retired.state == "succeeded", retired.error
            row = await a.row("vm", vm)
            assert (row["status"], row["description"], row["host_id"]) == ("down", "retired", None)
            assert hosts.kinds("vm_stopped", vm) == 1

    run(story())


def test_a_vm_is_started_and_stopped_once(database_url, hosts):
    async def story():
        async with engine(database_url, "a") as a:
            cluster, known = await a.furnish(hosts)
            vm = await a.vm(cluster)
            started = await a.do("start_vm", vm)
            assert started.state == "succeeded", started.error
            assert [step.state for step in started.steps] == ["finished", "finished"]
            row = await a.row("vm", vm)
            assert row["host_id"] in known
            assert row["status"] in ("powering_up", "up")
            stopped = await a.do("stop_vm", vm)
            assert stopped.state == "succeeded", stopped.error
            row = await a.row("vm", vm)
            assert (row["status"], row["host_id"]) == ("down", None)
            assert hosts.kinds("vm_started", vm) == hosts.kinds("vm_stopped", vm) == 1
            await nothing_held(a)

    run(story())


async def nothing_held(one) -> None:
    async def none():
        return (await one.node.rows(GRANTS))[0]["n"] == 0

    await eventually(none)


@pytest.mark.parametrize("point", ["before create", "after create"])
def test_a_start_is_adopted_and_happens_once(database_url, hosts, point):
    async def story():
        engines.died = asyncio.Event()
        async with (
            engine(database_url, "a", driver=Crashing) as a,
            engine(database_url, "b") as b,
        ):
            cluster, _ = await a.furnish(hosts)
            vm = await a.vm(cluster)
            Crashing.point = point
            submission = await a.submit("start_vm", vm)
            running = asyncio.ensure_future(a.runner.run(submission.command_id))
            await engines.died.wait()
            await a.node.die()
            view = await b.adopt(submission.command_id)
            running.cancel()
            assert (view.state, view.attempt) == ("succeeded", 2), view.error
            assert hosts.kinds("vm_started", vm) == 1
            assert (await b.row("vm", vm))["host_id"] is not None
            assert (await b.do("stop_vm", vm)).state == "succeeded"
            await nothing_held(b)

    run(story())


@pytest.mark.parametrize("point", ["before destroy", "after destroy"])
def test_a_stop_is_adopted_and_happens_once(database_url, hosts, point):
    async def story():
        engines.died = asyncio.Event()
        async with (
            engine(database_url, "a", driver=Crashing) as a,
            engine(database_url, "b") as b,
        ):
            cluster, _ = await a.furnish(hosts)
            vm = await a.vm(cluster)
            assert (await a.do("start_vm", vm)).state == "succeeded"
            Crashing.point = point
            submission = await a.submit("stop_vm", vm)
            running = asyncio.ensure_future(a.runner.run(submission.command_id))
            await engines.died.wait()
            await a.node.die()
            view = await b.adopt(submission.command_id)
            running.cancel()
            assert (view.state, view.attempt) == ("succeeded", 2), view.error
            assert hosts.kinds("vm_stopped", vm) == 1
            assert (await b.row("vm", vm))["status"] == "down"

    run(story())


def test_a_call_still_under_way_when_its_node_dies_takes_effect_once_or_never(database_url, hosts):
    """The host keeps the dead node's create in its queue; it must not surprise the adopter."""

    async def story():
        async with engine(database_url, "a") as a, engine(database_url, "b") as b:
            cluster, known = await a.furnish(hosts)
            vm = await a.vm(cluster)
            for number in range(1, len(known) + 1):
                await hosts.fault(number, "delay", verbs=["VM.create"], seconds=2.0, when="before")
            submission = await a.submit("start_vm", vm)
            running = asyncio.ensure_future(a.runner.run(submission.command_id))

            async def asked():
                return any(
                    r["kind"] == "call_held" and r["method"] == "VM.create" and r["vm"] == str(vm)
                    for r in hosts.records()
                )

            await eventually(asked)
            for number in range(1, len(known) + 1):
                await hosts.fault(number, "heal")
            await a.node.die()
            view = await b.adopt(submission.command_id)
            running.cancel()
            assert view.state == "succeeded", view.error
            assert (await b.do("stop_vm", vm)).state == "succeeded"
            await asyncio.sleep(0)

            async def late_call_is_over():
                calls = [r for r in hosts.records() if r.get("vm") == str(vm)]
                held = {r["request_id"] for r in calls if r["kind"] == "call_held"}
                return held <= {r["request_id"] for r in calls if r["kind"] == "call_begun"}

            await eventually(late_call_is_over)
            assert hosts.kinds("vm_started", vm) == hosts.kinds("vm_stopped", vm)

    run(story())


def test_a_start_that_the_host_never_got_is_undone(database_url, hosts):
    async def story():
        async with engine(database_url, "a", patience_s=0.3) as a:
            cluster, known = await a.furnish(hosts)
            vm = await a.vm(cluster)
            for number in range(1, len(known) + 1):
                await hosts.fault(number, "crash", seconds=2)
            view = await a.do("start_vm", vm)
            assert view.state == "failed"
            assert view.error_kind == "HostUnreachable"
            row = await a.row("vm", vm)
            assert (row["status"], row["host_id"]) == ("down", None)
            for number in range(1, len(known) + 1):
                await hosts.fault(number, "heal")
            await nothing_held(a)

    run(story())


def test_a_start_whose_outcome_nobody_can_learn_ends_as_unknown(database_url, hosts):
    async def story():
        async with engine(database_url, "a", patience_s=0.3) as a:
            cluster, known = await a.furnish(hosts)
            vm = await a.vm(cluster)
            for number in range(1, len(known) + 1):
                await hosts.fault(number, "hang")
            view = await a.do("start_vm", vm)
            assert view.state == "unknown"
            row = await a.row("vm", vm)
            assert row["status"] == "unknown"
            assert row["host_id"] is not None, "it may run there"
            for number in range(1, len(known) + 1):
                await hosts.fault(number, "heal")
            again = await a.do("start_vm", vm)
            assert (again.state, again.error_kind) == ("failed", "Conflict")
            truth = await a.do("reconcile_vm", vm)
            assert truth.state == "succeeded", truth.error
            assert (await a.row("vm", vm))["status"] == "down"

    run(story())


def test_two_starts_at_once_start_one_vm(database_url, hosts):
    async def story():
        async with engine(database_url, "a") as a, engine(database_url, "b") as b:
            cluster, _ = await a.furnish(hosts)
            vm = await a.vm(cluster)
            first, second = await a.submit("start_vm", vm), await b.submit("start_vm", vm)
            async with asyncio.TaskGroup() as group:
                group.create_task(a.runner.run(first.command_id))
                group.create_task(b.runner.run(second.command_id))
            views = [await a.view(each.command_id) for each in (first, second)]
            assert sorted(view.state for view in views) == ["failed", "succeeded"]
            loser = next(view for view in views if view.state == "failed")
            assert loser.error_kind in ("LockBusy", "Conflict")
            assert hosts.kinds("vm_started", vm) == 1

    run(story())


def test_one_job_too_many_runs_nothing(database_url, hosts):
    async def story():
        async with engine(database_url, "a") as a, engine(database_url, "b") as b:
            cluster, _ = await a.furnish(hosts)
            vm = await a.vm(cluster)
            submission = await a.submit("start_vm", vm)
            async with asyncio.TaskGroup() as group:
                for one in (a, b, a, b):
                    group.create_task(one.runner.run(submission.command_id))
            view = await a.view(submission.command_id)
            assert (view.state, view.attempt) == ("succeeded", 1)
            assert hosts.kinds("vm_started", vm) == 1

    run(story())


def test_a_cluster_without_room_refuses(database_url, hosts):
    async def story():
        async with engine(database_url, "a") as a:
            cluster, _ = await a.furnish(hosts)
            vm = await a.vm(cluster, memory_bytes=1 << 45)
            view = await a.do("start_vm", vm)
            assert (view.state, view.error_kind) == ("failed", "Conflict")
            assert "no host" in view.error
            assert (await a.row("vm", vm))["status"] == "down"

    run(story())


def test_wrong_states_are_refused_with_a_reason(database_url, hosts):
    async def story():
        async with engine(database_url, "a") as a:
            cluster, known = await a.furnish(hosts)
            vm = await a.vm(cluster)
            assert "is down" in (await a.do("stop_vm", vm)).error
            assert (await a.do("start_vm", vm)).state == "succeeded"
            assert "stop it first" in (await a.do("remove_vm", vm)).error
            host = (await a.row("vm", vm))["host_id"]
            assert host in known
            assert "maintenance first" in (await a.do("remove_host", host)).error
            assert "has hosts" in (await a.do("remove_cluster", cluster)).error
            assert (await a.do("stop_vm", vm)).state == "succeeded"
            for name in ("deactivate_host", "activate_host", "deactivate_host", "remove_host"):
                assert (await a.do(name, host)).state == "succeeded", name
            assert (await a.do("remove_vm", vm)).state == "succeeded"
            assert (await a.do("remove_vm", vm)).error_kind == "NotFound"

    run(story())


def test_names_are_taken_once(database_url, hosts):
    async def story():
        async with engine(database_url, "a") as a:
            cluster, _ = await a.furnish(hosts)
            names = [
                await a.do("add_vm", name="Twin", cluster_id=str(cluster), memory_bytes=1 << 28),
                await a.do("add_vm", name="twin", cluster_id=str(cluster), memory_bytes=1 << 28),
            ]
            assert [view.state for view in names] == ["succeeded", "failed"]
            assert names[1].error_kind == "Conflict"
            assert names[1].error == "there is another VM with this name"

    run(story())


def test_a_host_that_does_not_answer_is_added_as_install_failed(database_url, hosts):
    async def story():
        async with engine(database_url, "a", patience_s=0.3) as a:
            cluster, _ = await a.furnish(hosts)
            view = await a.do(
                "add_host", name="nobody", address="127.0.0.1", port=9, cluster_id=str(cluster)
            )
            assert view.state == "failed"
            assert view.accepted
            assert (await a.row("host", view.subject_id))["status"] == "install_failed"

    run(story())


def test_a_running_vm_keeps_its_memory_and_takes_a_new_description(database_url, hosts):
    async def story():
        async with engine(database_url, "a") as a:
            cluster, _ = await a.furnish(hosts)
            vm = await a.vm(cluster)
            assert (await a.do("start_vm", vm)).state == "succeeded"
            refused = await a.do("update_vm", vm, memory_bytes=1 << 31, description="new")
            assert (refused.state, refused.error_kind) == ("failed", "Conflict")
            assert (await a.do("update_vm", vm, description="new")).state == "succeeded"
            row = await a.row("vm", vm)
            assert (row["memory_bytes"], row["description"]) == (1 << 30, "new")
            assert (await a.do("stop_vm", vm)).state == "succeeded"
            assert (await a.do("update_vm", vm, memory_bytes=1 << 31)).state == "succeeded"

    run(story())


def test_elements_that_are_only_kept_are_merged_key_by_key(database_url, hosts):
    async def story():
        async with engine(database_url, "a") as a:
            cluster, _ = await a.furnish(hosts)
            vm = await a.vm(cluster)
            for attrs in ({"one": 1}, {"two": 2}, {"one": 3}):
                assert (await a.do("update_vm", vm, attrs=attrs)).state == "succeeded"
            assert (await a.row("vm", vm))["attrs"] == {"one": 3, "two": 2}

    run(story())


def test_a_job_cancelled_while_its_command_ends_leaves_nothing_locked(database_url, hosts):
    async def story():
        async with engine(database_url, "a") as a, engine(database_url, "b") as b:
            cluster, _ = await a.furnish(hosts)
            vm = await a.vm(cluster)
            submission = await a.submit("start_vm", vm)
            running = asyncio.ensure_future(a.runner.run(submission.command_id))
            whole = a.node.db._commit

            async def cancelled_meanwhile(connection):
                found = await connection.execute(
                    "select ended_at is not null as over from command where command_id = %s",
                    [submission.command_id],
                )
                if (await found.fetchone())["over"]:
                    running.cancel()
                return await whole(connection)

            a.node.db._commit = cancelled_meanwhile
            await asyncio.wait([running])
            assert running.cancelled()
            assert (await b.view(submission.command_id)).state == "succeeded"
            await nothing_held(b)
            assert (await b.do("stop_vm", vm)).state == "succeeded"

    run(story())


class Broken(VdsmDriver):
    """A host that fails in ways that nobody understands."""

    async def create_vm(self, *_):
        raise EngineError("internal error of the host")

    async def destroy_vm(self, *_):
        raise EngineError("internal error of the host")


def test_a_compensation_that_fails_ends_the_command_as_unknown(database_url, hosts):
    async def story():
        async with engine(database_url, "a", driver=Broken) as a:
            cluster, _ = await a.furnish(hosts)
            vm = await a.vm(cluster)
            view = await a.do("start_vm", vm)
            assert view.state == "unknown"
            assert "undoing it failed" in view.error
            await nothing_held(a)

    run(story())


def test_a_vm_that_runs_where_nobody_expects_it_is_found_and_owned(database_url, hosts):
    async def story():
        async with engine(database_url, "a") as a:
            cluster, known = await a.furnish(hosts)
            vm = await a.vm(cluster)
            assert (await a.do("start_vm", vm)).state == "succeeded"
            host = (await a.row("vm", vm))["host_id"]
            forget = "update vm set status = 'down', host_id = null where vm_id = %(vm)s"
            await a.node.db.statement(forget, {"vm": vm})
            assert host in known
            found = await a.do("reconcile_vm", vm, host_id=str(host))
            assert found.state == "succeeded", found.error
            row = await a.row("vm", vm)
            assert row["host_id"] == host
            assert row["status"] in ("powering_up", "up")
            await a.node.db.statement(forget, {"vm": vm})
            again = await a.do("start_vm", vm, host_id=str(host))
            assert again.state == "succeeded", again.error
            assert hosts.kinds("vm_started", vm) == 1
            assert (await a.do("stop_vm", vm)).state == "succeeded"

    run(story())


def test_no_change_of_a_host_begins_past_the_lease(database_url, hosts):
    async def story():
        begun = []

        class Slow(VdsmDriver):
            async def connect(self, ctx):
                identity = await super().connect(ctx)
                one.session.trusted_until = 0.0  # while it connected, the lease ran out
                return identity

            async def create_vm(self, ctx, vm_id, xml):
                begun.append(one.session.trusted)
                return await super().create_vm(ctx, vm_id, xml)

        async with engine(database_url, "b") as b, engine(database_url, "a", driver=Slow) as a:
            one = a.node
            cluster, _ = await b.furnish(hosts)
            vm = await b.vm(cluster)
            view = await a.do("start_vm", vm)
            assert view.state == "succeeded", view.error
            assert begun == [True]
            assert (await b.do("stop_vm", vm)).state == "succeeded"

    run(story())
