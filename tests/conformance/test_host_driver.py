"""What the engine relies on with every host driver, shown against real host processes."""

import asyncio
from contextlib import asynccontextmanager, suppress
from uuid import uuid4

import pytest

from engine_pg.errors import (
    Conflict,
    EngineError,
    HostBusy,
    HostUnreachable,
    NotFound,
    OutcomeUnknown,
    StaleToken,
)
from engine_pg.hosts.connections import HostConnections
from engine_pg.hosts.driver import Disconnected, HeldKey, OpCtx, Resync, VmChanged

HASTY_S = 0.2


def run(main):
    """Run a test's coroutine; what the loop complains about fails it."""
    complaints = []

    async def body():
        asyncio.get_running_loop().set_exception_handler(lambda _, said: complaints.append(said))
        async with asyncio.timeout(30):
            await main()

    asyncio.run(body())
    assert not complaints


async def seen(stream, wanted):
    """Read a stream until an event satisfies the condition, and return it."""
    async with asyncio.timeout(10):
        async for event in stream:
            if wanted(event):
                return event
    raise AssertionError("the stream ended first")


def vm_is(vm_id, state):
    return lambda event: (
        isinstance(event, VmChanged) and event.report.vm_id == vm_id and event.report.state == state
    )


def is_disconnected(event):
    return isinstance(event, Disconnected)


def ctx(*held, **changes) -> OpCtx:
    return OpCtx(**{"op_id": uuid4(), "timeout_s": 5.0, "held": held, **changes})


@asynccontextmanager
async def connected(host, **knobs):
    driver = host.driver(**knobs)
    await driver.connect(ctx())
    try:
        yield driver
    finally:
        await driver.close()


def grant(spec, token=1, mode="exclusive"):
    return HeldKey(f"vm/{spec.vm_id}", mode, token)


async def report_of(driver, spec, *held):
    reports = await driver.list_vms(ctx(*held))
    return next((report for report in reports if report.vm_id == spec.vm_id), None)


async def created(driver, spec, xml, *held):
    """Create a VM and wait until it is up."""
    stream = driver.events()
    accepted = await driver.create_vm(ctx(*(held or [grant(spec)])), spec.vm_id, xml)
    assert accepted.vm_id == spec.vm_id
    return (await seen(stream, vm_is(spec.vm_id, "up"))).report


# --- Verbs ---


def test_connecting_tells_which_host_answers_and_what_it_enforces(host, trusting_host):
    async def main():
        driver = host.driver()
        identity = await driver.connect(ctx())
        assert identity.host_uuid == host.uuid
        assert identity.boot_id
        assert identity.traits == driver.traits
        assert driver.traits.fencing == "all"
        await driver.close()
        async with connected(trusting_host) as trusting:
            assert trusting.traits.fencing == "none"

    run(main)


def test_a_host_tells_what_it_is_and_does(host):
    async def main():
        async with connected(host) as driver:
            await driver.ping(ctx())
            machine = await driver.capabilities(ctx())
            assert machine.identity.host_uuid == host.uuid
            assert machine.cpu_cores > 0
            assert machine.memory_bytes > 2**30
            now = await driver.stats(ctx())
            assert 0 <= now.cpu_percent <= 100
            assert 0 < now.memory_free_bytes <= machine.memory_bytes

    run(main)


def test_a_vm_lives_from_create_to_destroy(host, spec, xml):
    async def main():
        async with connected(host) as driver:
            assert await report_of(driver, spec) is None
            before = await driver.stats(ctx())
            up = await created(driver, spec, xml)
            assert await report_of(driver, spec) == up
            during = await driver.stats(ctx())
            assert during.vm_count == before.vm_count + 1
            assert during.memory_free_bytes == before.memory_free_bytes - spec.memory_bytes
            stream = driver.events()
            await driver.shutdown_vm(ctx(grant(spec)), spec.vm_id)
            down = (await seen(stream, vm_is(spec.vm_id, "down"))).report
            assert down.exit_code == 0
            assert down.exit_reason is not None
            assert down.status_time > up.status_time
            assert await report_of(driver, spec) == down  # until somebody has taken notice
            await driver.destroy_vm(ctx(grant(spec)), spec.vm_id)
            assert await report_of(driver, spec) is None

    run(main)


def test_a_running_vm_can_be_destroyed_at_once(host, spec, xml):
    async def main():
        async with connected(host) as driver:
            await created(driver, spec, xml)
            await driver.destroy_vm(ctx(grant(spec)), spec.vm_id)
            assert await report_of(driver, spec) is None

    run(main)


# --- Errors ---


def test_what_does_not_exist_is_not_found(host, spec):
    async def main():
        async with connected(host) as driver:
            with pytest.raises(NotFound):
                await driver.destroy_vm(ctx(grant(spec)), spec.vm_id)
            with pytest.raises(NotFound):
                await driver.shutdown_vm(ctx(grant(spec)), spec.vm_id)
            with pytest.raises(NotFound):
                await driver.cancel_migration(ctx(grant(spec)), spec.vm_id)

    run(main)


def test_what_is_not_on_its_way_is_not_kept(host, spec, xml):
    async def main():
        async with connected(host) as driver:
            await created(driver, spec, xml)
            with pytest.raises(Conflict):
                await driver.cancel_migration(ctx(grant(spec)), spec.vm_id)
            await driver.destroy_vm(ctx(grant(spec)), spec.vm_id)

    run(main)


def test_a_vm_is_not_created_twice_not_even_over_its_remains(host, spec, xml):
    async def main():
        async with connected(host) as driver:
            await created(driver, spec, xml)
            with pytest.raises(Conflict):
                await driver.create_vm(ctx(grant(spec)), spec.vm_id, xml)
            stream = driver.events()
            await host.fault("vm-crash", vm=str(spec.vm_id))
            down = (await seen(stream, vm_is(spec.vm_id, "down"))).report
            assert down.exit_code == 1
            assert down.exit_message
            with pytest.raises(Conflict):
                await driver.create_vm(ctx(grant(spec)), spec.vm_id, xml)

    run(main)


def test_nonsense_is_an_error_of_its_own(host, spec):
    async def main():
        async with connected(host) as driver:
            with pytest.raises(EngineError) as caught:
                await driver.create_vm(ctx(grant(spec)), spec.vm_id, "<no/domain>")
            assert not isinstance(caught.value, OutcomeUnknown)

    run(main)


def test_a_full_queue_makes_the_host_busy(host, spec):
    async def main():
        outcomes = []

        async def destroy(driver):
            with pytest.raises(EngineError) as caught:
                await driver.destroy_vm(ctx(grant(spec)), spec.vm_id)
            outcomes.append(caught.type)

        await host.fault("delay", verbs=["VM.destroy"], seconds=0.1)  # not faster than it is asked
        async with connected(host) as driver, asyncio.TaskGroup() as group:
            for _ in range(150):
                group.create_task(destroy(driver))
        assert set(outcomes) == {NotFound, HostBusy}
        assert outcomes.count(NotFound) >= 80

    run(main)


# --- Fencing ---


def test_a_stale_token_is_refused_by_a_host_that_checks(host, spec, xml):
    async def main():
        async with connected(host) as driver:
            await created(driver, spec, xml, grant(spec, 2))
            with pytest.raises(StaleToken):
                await driver.destroy_vm(ctx(grant(spec, 1)), spec.vm_id)
            with pytest.raises(StaleToken):
                await driver.ping(ctx(grant(spec, 1)))
            assert (await report_of(driver, spec)).state == "up"
            await driver.destroy_vm(ctx(grant(spec, 3)), spec.vm_id)

    run(main)


def test_a_look_raises_the_gate_before_the_first_change(host, spec, xml):
    async def main():
        async with connected(host) as predecessor, connected(host) as successor:
            assert await report_of(successor, spec, grant(spec, 8)) is None
            with pytest.raises(StaleToken):
                await predecessor.create_vm(ctx(grant(spec, 7)), spec.vm_id, xml)
            assert await report_of(successor, spec) is None

    run(main)


def test_one_stale_token_among_good_ones_is_enough(host, spec, xml):
    async def main():
        async with connected(host) as driver:
            host_key = f"host/{uuid4()}"
            await driver.list_vms(ctx(HeldKey(host_key, "exclusive", 5)))
            both = ctx(grant(spec), HeldKey(host_key, "shared", 4))
            with pytest.raises(StaleToken):
                await driver.create_vm(both, spec.vm_id, xml)
            assert await report_of(driver, spec) is None

    run(main)


def test_a_host_that_does_not_check_takes_a_stale_token(trusting_host, spec, xml):
    async def main():
        async with connected(trusting_host) as driver:
            await created(driver, spec, xml, grant(spec, 2))
            await driver.destroy_vm(ctx(grant(spec, 1)), spec.vm_id)
            assert await report_of(driver, spec) is None

    run(main)


# --- Calls side by side ---


def test_a_slow_call_does_not_hold_up_a_quick_one(host):
    async def main():
        await host.fault("delay", verbs=["Host.getStats"], seconds=0.3, when="after")
        finished = []

        async def noted(name, call):
            await call
            finished.append(name)

        async with connected(host) as driver, asyncio.TaskGroup() as group:
            group.create_task(noted("stats", driver.stats(ctx())))
            group.create_task(noted("ping", driver.ping(ctx())))
            group.create_task(noted("list", driver.list_vms(ctx())))
        assert finished[-1] == "stats"

    run(main)


def test_two_nodes_never_get_each_others_answers(host, spec, xml):
    async def main():
        async with connected(host) as one, connected(host) as other:
            await created(one, spec, xml)
            for _ in range(10):
                async with asyncio.TaskGroup() as group:
                    machine = group.create_task(one.capabilities(ctx()))
                    listed = group.create_task(other.list_vms(ctx()))
                    now = group.create_task(one.stats(ctx()))
                assert machine.result().identity.host_uuid == host.uuid
                assert any(report.vm_id == spec.vm_id for report in listed.result())
                assert now.result().vm_count > 0

    run(main)


def test_a_cancelled_call_leaves_the_connection_usable(host, spec):
    async def main():
        async with connected(host) as driver:
            await host.fault("hang", verbs=["VM.destroy"])
            call = asyncio.ensure_future(driver.destroy_vm(ctx(grant(spec)), spec.vm_id))
            await asyncio.sleep(0)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await driver.ping(ctx())
            await host.fault("heal")
            with pytest.raises(NotFound):
                await driver.destroy_vm(ctx(grant(spec)), spec.vm_id)

    run(main)


# --- No answer ---


@pytest.mark.parametrize(("when", "exists"), [("before", False), ("after", True)])
def test_an_unknown_outcome_is_settled_by_looking(host, spec, xml, when, exists):
    async def main():
        await host.fault("hang", verbs=["VM.create"], when=when)
        async with connected(host) as driver:
            with pytest.raises(OutcomeUnknown):
                await driver.create_vm(ctx(grant(spec), timeout_s=HASTY_S), spec.vm_id, xml)
            assert (await report_of(driver, spec) is not None) == exists

    run(main)


def test_a_late_call_is_stopped_by_the_look_of_a_successor(host, spec, xml):
    async def main():
        await host.fault("delay", verbs=["VM.create"], seconds=0.4)
        async with connected(host) as predecessor, connected(host) as successor:
            with pytest.raises(OutcomeUnknown):
                await predecessor.create_vm(ctx(grant(spec, 1), timeout_s=HASTY_S), spec.vm_id, xml)
            assert await report_of(successor, spec, grant(spec, 2)) is None
            await host.fault("heal")  # the call that is held stays so
            stream = successor.events()
            await successor.create_vm(ctx(grant(spec, 2)), spec.vm_id, xml)
            await seen(stream, vm_is(spec.vm_id, "up"))
            assert (await report_of(successor, spec)).state == "up"

    run(main)


def test_a_read_without_an_answer_is_an_unreachable_host(host):
    async def main():
        async with connected(host) as driver:
            await host.fault("hang", verbs=["Host.getAllVmStats"])
            with pytest.raises(HostUnreachable):
                await driver.list_vms(ctx(timeout_s=HASTY_S))
            await driver.ping(ctx())

    run(main)


def test_a_lost_connection_leaves_the_outcome_unknown(host, spec, xml):
    async def main():
        await host.fault("hang", verbs=["VM.create"])
        async with connected(host) as driver:
            stream = driver.events()
            call = asyncio.ensure_future(driver.create_vm(ctx(grant(spec)), spec.vm_id, xml))
            await driver.ping(ctx())  # sent after the creation, so that is with the host too
            await host.fault("crash", seconds=0.05)
            with pytest.raises(OutcomeUnknown):
                await call
            await seen(stream, is_disconnected)
            with pytest.raises(HostUnreachable):
                await driver.destroy_vm(ctx(grant(spec)), spec.vm_id)

    run(main)


def test_a_closed_driver_leaves_the_outcome_unknown(host, spec, xml):
    async def main():
        await host.fault("hang", verbs=["VM.create"], when="after")
        async with connected(host) as driver:
            call = asyncio.ensure_future(driver.create_vm(ctx(grant(spec)), spec.vm_id, xml))
            await driver.ping(ctx())
            await driver.close()
            with pytest.raises(OutcomeUnknown):
                await call
        async with connected(host) as driver:
            assert await report_of(driver, spec) is not None

    run(main)


def test_a_frozen_host_is_found_out_by_its_silence(host):
    async def main():
        async with connected(host, heartbeat_s=1.0) as driver:
            stream = driver.events()
            with host.frozen():
                assert "silent" in (await seen(stream, is_disconnected)).reason

    run(main)


def test_a_quiet_connection_stays(host):
    async def main():
        async with connected(host, heartbeat_s=1.0) as driver:
            stream = driver.events()
            with pytest.raises(TimeoutError):  # twice the host's patience, by its clock
                async with asyncio.timeout(2.2):
                    await seen(stream, is_disconnected)
            await driver.ping(ctx())

    run(main)


# --- Events and reconnecting ---


def test_every_reader_sees_the_same_events_after_its_resync(host, spec, xml):
    async def main():
        async with connected(host) as driver, connected(host) as other:
            streams = [driver.events(), driver.events(), other.events()]
            await driver.create_vm(ctx(grant(spec)), spec.vm_id, xml)
            for stream in streams:
                assert await anext(stream) == Resync()
                states = []
                while "up" not in states:
                    event = await anext(stream)
                    if isinstance(event, VmChanged) and event.report.vm_id == spec.vm_id:
                        states.append(event.report.state)
                assert states == ["wait_for_launch", "powering_up", "up"]

    run(main)


def test_after_a_loss_connecting_again_starts_with_a_resync(host, spec, xml):
    async def main():
        async with connected(host) as driver:
            first = await driver.capabilities(ctx())
            await created(driver, spec, xml)
            stream = driver.events()
            await host.fault("crash")
            await seen(stream, is_disconnected)
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
            identity = await reconnected(driver)
            assert identity.host_uuid == first.identity.host_uuid
            assert identity.boot_id != first.identity.boot_id
            assert await anext(driver.events()) == Resync()
            assert await report_of(driver, spec) is None

    run(main)


async def reconnected(driver):
    """Connect as soon as the host is back."""
    async with asyncio.timeout(10):
        while True:
            with suppress(HostUnreachable):
                return await driver.connect(ctx())
            await asyncio.sleep(0.01)


def test_a_host_that_refuses_connections_is_unreachable_until_it_takes_them(host):
    async def main():
        await host.fault("refuse-connections")
        driver = host.driver()
        with pytest.raises(HostUnreachable):
            await driver.connect(ctx())
        await host.fault("heal")
        await reconnected(driver)
        await driver.ping(ctx())
        await driver.close()

    run(main)


def test_a_node_gets_a_new_connection_after_a_loss(host):
    async def main():
        host_id = uuid4()
        async with HostConnections(host.make) as connections:
            first = await connections.get(host_id, host.address, host.port, ctx())
            assert await connections.get(host_id, host.address, host.port, ctx()) is first
            stream = first.events()
            await host.fault("crash")
            await seen(stream, is_disconnected)
            second = await replaced(connections, first, (host_id, host.address, host.port))
            await second.ping(ctx())

    run(main)


async def replaced(connections, lost, place):
    """Ask for a connection until there is another one."""
    async with asyncio.timeout(10):
        while True:
            with suppress(HostUnreachable):
                driver = await connections.get(*place, ctx())
                if driver is not lost:
                    return driver
            await asyncio.sleep(0.01)
