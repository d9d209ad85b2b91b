"""A node has one connection for each host, whoever asks for it and however it ends."""

import asyncio
from uuid import uuid4

import pytest
from vdsm_script import CAPABILITIES, ScriptedHost, ctx, run

from engine_pg.errors import EngineError, HostUnreachable, Unavailable
from engine_pg.hosts.connections import HostConnections
from engine_pg.hosts.driver import Disconnected, HeldKey
from engine_pg.hosts.vdsm.client import VdsmDriver
from engine_pg.hosts.vdsm.frames import HEARTBEAT

HOST_ID = uuid4()
HERE = "127.0.0.1"


def node(test, *, make=VdsmDriver, **knobs):
    async def main():
        async with ScriptedHost() as host, HostConnections(make, **knobs) as connections:
            await test(host, connections)

    run(main)


async def ended(driver):
    async for event in driver.events():
        if isinstance(event, Disconnected):
            return event.reason
    return None


def test_a_connection_is_opened_once_and_kept():
    async def test(host, connections):
        first = await connections.get(HOST_ID, HERE, host.port, ctx())
        await first.ping(ctx())
        assert await connections.get(HOST_ID, HERE, host.port, ctx()) is first
        assert host.connections == 1

    node(test)


def test_callers_at_once_share_one_attempt():
    async def test(host, connections):
        async with asyncio.TaskGroup() as group:
            calls = [
                group.create_task(connections.get(HOST_ID, HERE, host.port, ctx()))
                for _ in range(10)
            ]
        assert len({call.result() for call in calls}) == 1
        assert host.connections == 1

    node(test)


def test_an_attempt_survives_the_caller_who_began_it():
    async def test(host, connections):
        del host.answers["Host.getCapabilities"]
        first = asyncio.ensure_future(connections.get(HOST_ID, HERE, host.port, ctx()))
        request = await host.request("Host.getCapabilities")
        second = asyncio.ensure_future(connections.get(HOST_ID, HERE, host.port, ctx()))
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        host.reply(request, result=CAPABILITIES)
        await (await second).ping(ctx())
        assert host.connections == 1

    node(test)


def test_a_failed_attempt_fails_all_its_callers_and_is_forgotten():
    async def test(host, connections):
        host.answers["Host.getCapabilities"] = lambda _: {"error": {"code": 99, "message": "wait"}}
        calls = [
            asyncio.ensure_future(connections.get(HOST_ID, HERE, host.port, ctx()))
            for _ in range(3)
        ]
        for call in calls:
            with pytest.raises(Unavailable, match="wait"):
                await call
        assert host.connections == 1
        host.answers["Host.getCapabilities"] = lambda _: {"result": CAPABILITIES}
        await connections.get(HOST_ID, HERE, host.port, ctx())

    node(test)


def test_each_caller_waits_no_longer_than_it_wants():
    async def test(host, connections):
        host.greeting = HEARTBEAT
        patient = asyncio.ensure_future(connections.get(HOST_ID, HERE, host.port, ctx()))
        await host.until(lambda: host.frames)
        with pytest.raises(HostUnreachable, match=r"0\.02 s"):
            await connections.get(HOST_ID, HERE, host.port, ctx(timeout_s=0.02))
        assert not patient.done()
        await connections.drop(HOST_ID)
        with pytest.raises(HostUnreachable, match="dropped"):
            await patient

    node(test)


def test_an_attempt_carries_nobodys_tokens():
    async def test(host, connections):
        held = (HeldKey("vm/1", "exclusive", 1),)
        await connections.get(HOST_ID, HERE, host.port, ctx(held=held))
        assert "engineFence" not in host.requests[0]["params"]

    node(test)


def test_a_lost_connection_is_replaced_at_the_next_request():
    async def test(host, connections):
        first = await connections.get(HOST_ID, HERE, host.port, ctx())
        lost = asyncio.ensure_future(ended(first))
        await asyncio.sleep(0)
        host.cut()
        await lost
        second = await connections.get(HOST_ID, HERE, host.port, ctx())
        assert second is not first
        await second.ping(ctx())

    node(test)


def test_a_lost_connection_that_is_slow_to_close_is_not_handed_out_again():
    release = asyncio.Event()

    class SlowDriver(VdsmDriver):
        async def close(self):
            await release.wait()
            await super().close()

    async def test(host, connections):
        first = await connections.get(HOST_ID, HERE, host.port, ctx())
        lost = asyncio.ensure_future(ended(first))
        await asyncio.sleep(0)
        host.cut()
        await lost
        second = await connections.get(HOST_ID, HERE, host.port, ctx())
        assert second is not first
        release.set()

    node(test, make=SlowDriver)


def test_a_changed_address_opens_a_new_connection_and_closes_the_old():
    async def test(host, connections):
        old = await connections.get(HOST_ID, HERE, host.port, ctx())
        async with ScriptedHost() as elsewhere:
            new = await connections.get(HOST_ID, HERE, elsewhere.port, ctx())
            await new.ping(ctx())
            with pytest.raises(HostUnreachable):
                await old.ping(ctx())
            assert elsewhere.connections == 1

    node(test)


def test_a_dropped_connection_is_closed_and_may_be_opened_again():
    async def test(host, connections):
        first = await connections.get(HOST_ID, HERE, host.port, ctx())
        await connections.drop(HOST_ID)
        await connections.drop(HOST_ID)
        with pytest.raises(HostUnreachable):
            await first.ping(ctx())
        await (await connections.get(HOST_ID, HERE, host.port, ctx())).ping(ctx())

    node(test)


def test_an_attempt_dropped_before_it_began_ends_its_callers():
    async def test(host, connections):
        call = asyncio.ensure_future(connections.get(HOST_ID, HERE, host.port, ctx()))
        await asyncio.sleep(0)  # the caller has asked; the attempt has not run yet
        await connections.drop(HOST_ID)
        with pytest.raises(HostUnreachable, match="dropped"):
            await call
        await connections.get(HOST_ID, HERE, host.port, ctx())

    node(test)


def test_after_closing_nothing_is_open_and_nothing_is_opened():
    async def test(host, connections):
        driver = await connections.get(HOST_ID, HERE, host.port, ctx())
        await connections.close()
        with pytest.raises(HostUnreachable):
            await driver.ping(ctx())
        with pytest.raises(HostUnreachable):
            await connections.get(HOST_ID, HERE, host.port, ctx())

    node(test)


def test_the_number_of_hosts_is_bounded():
    async def test(host, connections):
        await connections.get(HOST_ID, HERE, host.port, ctx())
        with pytest.raises(Unavailable):
            await connections.get(uuid4(), HERE, host.port, ctx())
        await connections.get(HOST_ID, HERE, host.port, ctx())

    node(test, max_hosts=1)


def test_a_driver_that_breaks_does_not_break_its_node(caplog):
    class BreakingDriver(VdsmDriver):
        async def connect(self, ctx):
            raise KeyError(ctx.correlation_id)

    async def test(host, connections):
        with pytest.raises(EngineError, match="broke"):
            await connections.get(HOST_ID, HERE, host.port, ctx())

    node(test, make=BreakingDriver)
    assert str(HOST_ID) in caplog.text
