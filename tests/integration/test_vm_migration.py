"""VMs move to other hosts while they run, alone and when their host is taken out of service."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from integration.engines import INFLIGHT_S, engine, simulated
from integration.nodes import eventually, run
from integration.test_command_halts import ask_cancel, final, running

from engine_pg.clock import boottime
from engine_pg.commands.migrate_vm import MAINTENANCE
from engine_pg.commands.parts import shared
from engine_pg.errors import MemberEnded


@pytest.fixture(scope="module", params=["all", "none"])
def hosts(request):
    with simulated(request.param) as simulator:
        yield simulator
        verdict = simulator.verdict()
        assert verdict.clean, verdict.violations


async def running_vm(a, cluster, **more):
    vm = await a.vm(cluster, **more)
    started = await a.do("start_vm", vm)
    assert started.state == "succeeded", started.error
    return vm, (await a.row("vm", vm))["host_id"]


async def to_the_end(a, submission):
    """Run a parent, its children, and the parent again."""
    await a.runner.run(submission.command_id)
    children = await a.node.rows(
        "select command_id from command where parent_id = %(id)s", id=submission.command_id
    )
    async with asyncio.TaskGroup() as group:
        for child in children:
            group.create_task(a.runner.run(child["command_id"]))

    async def final():
        await a.runner.run(submission.command_id)
        view = await a.view(submission.command_id)
        return view if view.final else None

    return await eventually(final)


def test_a_running_vm_moves_to_the_other_host_and_back(database_url, hosts):
    async def story():
        async with engine(database_url, "a") as a:
            cluster, known = await a.furnish(hosts)
            vm, first = await running_vm(a, cluster)
            [other] = set(known) - {first}
            for source, destination in ((first, other), (other, first)):
                moved = await a.do("migrate_vm", vm)
                assert moved.state == "succeeded", moved.error
                row = await a.row("vm", vm)
                assert row["host_id"] == destination != source
                assert row["status"] in ("powering_up", "up")
            assert (await a.do("stop_vm", vm)).state == "succeeded"
            assert hosts.kinds("vm_incoming", vm) == 2
            assert hosts.kinds("vm_started", vm) == hosts.kinds("vm_stopped", vm) == 3

    run(story())


def test_what_does_not_run_or_has_nowhere_to_go_is_not_moved(database_url, hosts):
    async def story():
        async with engine(database_url, "a") as a:
            cluster, known = await a.furnish(hosts)
            down = await a.vm(cluster)
            assert "is down" in (await a.do("migrate_vm", down)).error
            vm, here = await running_vm(a, cluster)
            [other] = set(known) - {here}
            pinned = await a.do("migrate_vm", vm, host_id=str(here))
            assert "no other host" in pinned.error
            big = await a.vm(cluster, memory_bytes=60 << 30)
            placed = await a.do("start_vm", big, host_id=str(other))
            assert placed.state == "succeeded", placed.error
            small = await a.do("migrate_vm", big)
            assert small.state == "succeeded", "60 of 64 GiB: there is room beside 1 GiB"
            refused = await a.do("migrate_vm", vm, host_id=str(other))
            assert refused.state == "succeeded", refused.error
            for each in (vm, big):
                assert (await a.do("stop_vm", each)).state == "succeeded"

    run(story())


def test_a_host_is_not_taken_out_of_service_while_something_is_brought_to_it(database_url, hosts):
    async def story():
        async with engine(database_url, "a") as a, engine(database_url, "b") as b:
            _, [host, _] = await a.furnish(hosts)
            hold = await b.node.locks.acquire(shared(MAINTENANCE, host))
            submission = await a.submit("deactivate_host", host)
            async with running(a, submission):

                async def waits():
                    return await a.node.rows("select from lock_ticket")

                await eventually(waits)
                assert (await a.row("host", host))["status"] == "up"
                b.node.locks.release(hold)
                view = await final(a, submission)
            assert view.state == "succeeded", view.error

    run(story())


def test_a_host_is_emptied_before_it_is_in_maintenance(database_url, hosts):
    async def story():
        async with engine(database_url, "a") as a:
            cluster, known = await a.furnish(hosts)
            host = known[0]
            vms = []
            for _ in range(4):
                vm = await a.vm(cluster)
                assert (await a.do("start_vm", vm, host_id=str(host))).state == "succeeded"
                vms.append(vm)
            submission = await a.submit("deactivate_host", host, reason="new disks")
            view = await to_the_end(a, submission)
            assert view.state == "succeeded", view.error
            assert view.steps[1].outcome == {"moved": 4}
            row = await a.row("host", host)
            assert (row["status"], row["status_detail"]) == ("maintenance", "new disks")
            assert {(await a.row("vm", vm))["host_id"] for vm in vms} == {known[1]}
            assert (
                "no host" in (await a.do("start_vm", await a.vm(cluster), host_id=str(host))).error
            )
            for vm in vms:
                assert hosts.kinds("vm_incoming", vm) == 1
                assert (await a.do("stop_vm", vm)).state == "succeeded"
            assert (await a.do("activate_host", host)).state == "succeeded"

    run(story())


def test_a_host_whose_vms_can_not_move_stays_in_service(database_url, hosts):
    async def story():
        async with engine(database_url, "a") as a:
            cluster, known = await a.furnish(hosts)
            vm, here = await running_vm(a, cluster)
            [other] = set(known) - {here}
            assert (await a.do("deactivate_host", other)).state == "succeeded"
            view = await to_the_end(a, await a.submit("deactivate_host", here))
            assert view.state == "failed"
            assert "1 VMs did not move" in view.error
            assert "no other host" in view.error
            assert (await a.row("host", here))["status"] == "up"
            assert (await a.row("vm", vm))["status"] in ("powering_up", "up")
            assert (await a.do("stop_vm", vm)).state == "succeeded"

    run(story())


@pytest.fixture(scope="module")
def slow_hosts():
    with simulated("all", migration_s=2.0) as simulator:
        yield simulator
        verdict = simulator.verdict()
        assert verdict.clean, verdict.violations


async def on_its_way(hosts, vm):
    async def begun():
        return hosts.kinds("vm_incoming", vm)

    await eventually(begun)


async def kept(a, hosts, vm, host):
    """Wait until a VM is on its way no more, and see that it is where it was, and nowhere else."""

    async def given_up():
        return hosts.kinds("vm_forgotten", vm)

    await eventually(given_up)
    row = await a.row("vm", vm)
    assert (row["host_id"], row["status"] in ("powering_up", "up")) == (host, True)
    assert (hosts.kinds("vm_started", vm), hosts.kinds("vm_stopped", vm)) == (1, 0)
    assert (await a.do("stop_vm", vm)).state == "succeeded"


def test_a_migration_that_is_cancelled_under_way_leaves_the_vm_where_it_was(
    database_url, slow_hosts
):
    async def story():
        async with engine(database_url, "a") as a:
            cluster, _ = await a.furnish(slow_hosts)
            vm, here = await running_vm(a, cluster)
            submission = await a.submit("migrate_vm", vm)
            async with running(a, submission):
                await on_its_way(slow_hosts, vm)
                await ask_cancel(a, submission.command_id)
                view = await final(a, submission)
            assert (view.state, view.error) == ("cancelled", "cancelled by operator")
            await kept(a, slow_hosts, vm, here)

    run(story())


def test_a_migration_is_cancelled_by_whoever_adopts_it(database_url, slow_hosts):
    async def story():
        async with engine(database_url, "a") as a, engine(database_url, "b") as b:
            cluster, _ = await b.furnish(slow_hosts)
            vm, here = await running_vm(b, cluster)
            submission = await a.submit("migrate_vm", vm)
            with suppress(MemberEnded):
                async with running(a, submission):
                    await on_its_way(slow_hosts, vm)
                    await a.node.die()
            await ask_cancel(b, submission.command_id)
            view = await b.adopt(submission.command_id)
            assert view.state == "cancelled", view.error
            await kept(b, slow_hosts, vm, here)

    run(story())


def last_received(hosts, method) -> float:
    """Return when a host received the last call of this method that it was to hold back."""
    return max(
        record["received"]
        for record in hosts.records()
        if record["kind"] == "call_held" and record["method"] == method
    )


def test_a_vm_that_arrived_before_its_migration_was_cancelled_has_moved(database_url, slow_hosts):
    async def story():
        async with engine(database_url, "a") as a:
            cluster, known = await a.furnish(slow_hosts)
            vm, here = await running_vm(a, cluster)
            [other] = set(known) - {here}
            for number in (1, 2):
                await slow_hosts.fault(
                    number, "delay", verbs=["VM.migrateCancel"], seconds=2.2, when="before"
                )
            submission = await a.submit("migrate_vm", vm)
            async with running(a, submission):
                await on_its_way(slow_hosts, vm)
                await ask_cancel(a, submission.command_id)
                view = await final(a, submission)
                waited_s = boottime() - last_received(slow_hosts, "VM.migrateCancel")
                assert waited_s >= INFLIGHT_S
            assert view.state == "succeeded", view.error
            assert (await a.row("vm", vm))["host_id"] == other
            assert (slow_hosts.kinds("vm_started", vm), slow_hosts.kinds("vm_stopped", vm)) == (
                2,
                1,
            )
            for number in (1, 2):
                await slow_hosts.fault(number, "heal")
            assert (await a.do("stop_vm", vm)).state == "succeeded"

    run(story())


def test_a_migration_that_breaks_off_leaves_the_vm_where_it_was(database_url, slow_hosts):
    async def story():
        async with engine(database_url, "a") as a:
            cluster, known = await a.furnish(slow_hosts)
            vm, here = await running_vm(a, cluster)
            other = 2 if known[0] == here else 1
            submission = await a.submit("migrate_vm", vm)
            async with running(a, submission):
                await on_its_way(slow_hosts, vm)
                assert (await a.row("vm", vm))["status"] == "migrating"
                await slow_hosts.fault(other, "crash", seconds=0.05)
                view = await final(a, submission)
            assert (view.state, view.error_kind) == ("failed", "Conflict"), view.error
            assert "could not be moved" in view.error
            row = await a.row("vm", vm)
            assert row["host_id"] == here
            assert row["status"] in ("powering_up", "up")
            assert (await a.do("stop_vm", vm)).state == "succeeded"

    run(story())


def test_what_moves_counts_on_both_hosts(database_url, slow_hosts):
    async def story():
        async with engine(database_url, "a") as a:
            cluster, known = await a.furnish(slow_hosts)
            vm, here = await running_vm(a, cluster, memory_bytes=40 << 30)
            [other] = set(known) - {here}
            submission = await a.submit("migrate_vm", vm)
            async with running(a, submission):
                await on_its_way(slow_hosts, vm)
                for host in (here, other):
                    big = await a.vm(cluster, memory_bytes=40 << 30)
                    refused = await a.do("start_vm", big, host_id=str(host))
                    assert "has room" in refused.error
                assert (await final(a, submission)).state == "succeeded"
            assert (await a.do("stop_vm", vm)).state == "succeeded"

    run(story())
