"""The driver against hosts that misbehave; `tests/conformance` shows it against a sound one."""

import asyncio
import gc
import json
import socket

import pytest
from vdsm_script import CAPABILITIES, HOST_UUID, VM_ID, ScriptedHost, ctx, run

from engine_pg.errors import (
    Conflict,
    EngineError,
    HostBusy,
    HostUnreachable,
    NotFound,
    OutcomeUnknown,
    StaleToken,
    TooLarge,
)
from engine_pg.hosts.driver import Disconnected, HeldKey, Resync, VmChanged
from engine_pg.hosts.vdsm import events, rpc
from engine_pg.hosts.vdsm.client import VdsmDriver
from engine_pg.hosts.vdsm.frames import HEARTBEAT, Frame, encode


def connected(test, *, heartbeat="0,0", **knobs):
    """Run a test with a scripted host and a driver connected to it."""

    async def main():
        async with ScriptedHost(heartbeat=heartbeat) as host:
            driver = host.driver(**knobs)
            await driver.connect(ctx())
            try:
                await test(host, driver)
            finally:
                await driver.close()

    run(main)


def up(**changes):
    return {"vmId": str(VM_ID), "status": "Up", "statusTime": "7", **changes}


# --- Connecting ---


def test_what_finds_no_way_is_given_up_by_the_kernel():
    """Or a call would arrive when nobody expects it: minutes later, after a partition."""

    async def test(_, driver):
        sock = driver._rpc._stomp._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 2000

    connected(test, heartbeat_s=2.0)


def test_connecting_tells_who_answers():
    async def main():
        async with ScriptedHost() as host:
            driver = host.driver()
            identity = await driver.connect(ctx())
            assert identity.host_uuid == HOST_UUID
            assert identity.boot_id == "boot-1"
            assert driver.traits.fencing == "none"
            await driver.close()

    run(main)


def test_a_host_that_checks_tokens_says_so():
    async def main():
        async with ScriptedHost() as host:
            host.answers["Host.getCapabilities"] = lambda _: {
                "result": {**CAPABILITIES, "engineFencing": "all"}
            }
            driver = host.driver()
            await driver.connect(ctx())
            assert driver.traits.fencing == "all"
            await driver.close()

    run(main)


def test_a_closed_port_is_an_unreachable_host():
    async def main():
        async with ScriptedHost() as host:
            port = host.port
        for address in ("127.0.0.1", "no such name", "x" * 300):
            with pytest.raises(HostUnreachable):
                await VdsmDriver(address, port).connect(ctx())

    run(main)


def test_a_host_that_accepts_and_says_nothing_is_unreachable_in_time():
    async def main():
        async with ScriptedHost(greeting=HEARTBEAT) as host:
            with pytest.raises(HostUnreachable, match=r"0\.05 s"):
                await host.driver(connect_timeout_s=0.05).connect(ctx())
            with pytest.raises(HostUnreachable, match=r"0\.04 s"):
                await host.driver().connect(ctx(timeout_s=0.04))
            await host.left_alone()

    run(main)


@pytest.mark.parametrize(
    "greeting",
    [
        encode(Frame("ERROR", {"message": "Version unsupported"})),
        encode(Frame("RECEIPT", {})),
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n\0",
        b"x" * 20_000,
    ],
)
def test_a_host_that_greets_strangely_is_unreachable(greeting):
    async def main():
        async with ScriptedHost(greeting=greeting) as host:
            with pytest.raises(HostUnreachable):
                await host.driver().connect(ctx())
            await host.left_alone()

    run(main)


def test_a_host_that_does_not_say_who_it_is_is_left_again():
    async def main():
        async with ScriptedHost() as host:
            host.answers["Host.getCapabilities"] = lambda _: {"result": {"uuid": "nobody"}}
            driver = host.driver()
            with pytest.raises(EngineError):
                await driver.connect(ctx())
            with pytest.raises(HostUnreachable):
                await driver.ping(ctx())
            await host.left_alone()

    run(main)


def test_a_cancelled_connect_leaves_nothing_open():
    async def main():
        async with ScriptedHost(greeting=HEARTBEAT) as host:
            connecting = asyncio.ensure_future(host.driver().connect(ctx()))
            await host.until(lambda: host.frames)
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
            await host.left_alone()

    run(main)


def test_nothing_is_asked_before_connecting():
    async def main():
        driver = VdsmDriver("127.0.0.1", 1)
        with pytest.raises(HostUnreachable):
            await driver.list_vms(ctx())
        with pytest.raises(HostUnreachable):
            await driver.destroy_vm(ctx(), VM_ID)
        assert [event async for event in driver.events()] == [
            Resync(),
            Disconnected("not connected"),
        ]
        await driver.close()

    run(main)


def test_a_second_connect_is_refused_while_connected_and_works_after_a_loss():
    async def test(host, driver):
        with pytest.raises(Conflict):
            await driver.connect(ctx())
        stream = driver.events()
        host.cut()
        assert [type(event) async for event in stream] == [Resync, Disconnected]
        await driver.connect(ctx())
        await driver.ping(ctx())

    connected(test)


# --- What goes over the wire ---


def test_every_connection_has_a_reply_queue_of_its_own_and_every_call_an_id():
    async def test(host, driver):
        other = host.driver()
        await other.connect(ctx())
        await driver.ping(ctx())
        await driver.ping(ctx())
        await other.close()
        queues = {
            frame.headers["destination"]
            for frame in host.frames
            if frame.command == "SUBSCRIBE" and frame.headers["destination"] != "jms.queue.events"
        }
        sent = [frame for frame in host.frames if frame.command == "SEND"]
        assert {frame.headers["reply-to"] for frame in sent} == queues
        assert len(queues) == 2
        ids = [request["id"] for request in host.requests]
        assert len(set(ids)) == len(ids) == 4

    connected(test)


def test_tokens_and_correlation_id_travel_with_every_verb():
    held = (HeldKey("vm/1", "exclusive", 7), HeldKey("host/2", "shared", 3))
    here = ctx(held=held, correlation_id="flow-1\nx:y", timeout_s=0.05)

    async def test(host, driver):
        calls = [
            driver.ping(here),
            driver.capabilities(here),
            driver.stats(here),
            driver.list_vms(here),
            driver.create_vm(here, VM_ID, "<domain/>"),
            driver.destroy_vm(here, VM_ID),
            driver.shutdown_vm(here, VM_ID, 30),
        ]
        host.answers.clear()
        host.requests.clear()
        host.frames.clear()
        for call in calls:
            with pytest.raises((HostUnreachable, OutcomeUnknown)):
                await call
        assert len(host.requests) == len(calls)
        for request, frame in zip(host.requests, host.frames, strict=True):
            assert request["params"]["engineFence"] == [
                {"key": "vm/1", "mode": "exclusive", "token": 7},
                {"key": "host/2", "mode": "shared", "token": 3},
            ]
            assert frame.headers["ovirtCorrelationId"] == "flow-1\nx:y"
        assert host.requests[4]["params"]["vmParams"]["xml"] == "<domain/>"
        assert host.requests[6]["params"]["delay"] == "30"

    connected(test)


def test_an_oversized_request_is_refused_before_anything_is_sent():
    async def test(host, driver):
        asked = len(host.requests)
        with pytest.raises(TooLarge):
            await driver.create_vm(ctx(), VM_ID, "x" * 2_000_000)
        await driver.ping(ctx())
        assert len(host.requests) == asked + 1

    connected(test)


def test_a_call_without_time_is_not_sent():
    async def test(host, driver):
        asked = len(host.requests)
        with pytest.raises(HostUnreachable):
            await driver.destroy_vm(ctx(timeout_s=0), VM_ID)
        await driver.ping(ctx())
        assert len(host.requests) == asked + 1

    connected(test)


def test_too_many_calls_at_once_are_refused(monkeypatch):
    monkeypatch.setattr(rpc, "MAX_IN_FLIGHT", 2)

    async def test(host, driver):
        del host.answers["Host.ping2"]
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(driver.ping(ctx()))
            requests = [await host.request("Host.ping2") for _ in range(2)]
            with pytest.raises(HostBusy):
                await driver.ping(ctx())
            for request in requests:
                host.reply(request, result=True)

    connected(test)


def test_a_host_that_reads_nothing_does_not_fill_our_memory():
    async def test(host, driver):
        host.deafen()
        xml = "x" * 1_000_000
        outcomes = set()
        for _ in range(100):
            with pytest.raises(EngineError) as caught:
                await driver.create_vm(ctx(timeout_s=0.001), VM_ID, xml)
            outcomes.add(caught.type)
        assert outcomes == {OutcomeUnknown, HostBusy}

    connected(test, heartbeat_s=60.0)  # or the kernel gives it up meanwhile


# --- Answers ---


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (1, NotFound),
        (4, Conflict),
        (6, Conflict),
        (78, Conflict),
        (1500, Conflict),
        (99, HostBusy),
        (1100, HostBusy),
        (4901, StaleToken),
        (16, EngineError),
        (-32603, EngineError),
        (None, EngineError),
        ({}, EngineError),
    ],
)
def test_error_codes_become_errors(code, expected):
    async def test(host, driver):
        host.answers["VM.destroy"] = lambda _: {"error": {"code": code, "message": "said so"}}
        with pytest.raises(EngineError, match="said so") as caught:
            await driver.destroy_vm(ctx(), VM_ID)
        assert type(caught.value) is expected

    connected(test)


@pytest.mark.parametrize(
    "answer",
    [{}, {"error": "broken"}, {"error": []}, {"error": None}, {"result": []}, {"result": {}}],
)
def test_a_change_whose_answer_makes_no_sense_may_have_happened(answer):
    async def test(host, driver):
        host.answers["VM.create"] = lambda _: answer
        with pytest.raises(OutcomeUnknown):
            await driver.create_vm(ctx(), VM_ID, "<domain/>")
        await driver.ping(ctx())

    connected(test)


@pytest.mark.parametrize(
    "result",
    [
        None,
        "text",
        {},
        [None],
        [[]],
        [{}],
        [up(), up(vmId="not a uuid")],
        [up(vmId=None)],
        [up(vmId=5)],
        [up(statusTime="soon")],
        [up(statusTime=None)],
        [up(statusTime=float("nan"))],
        [up(statusTime=10**400)],
        [up(status="Down", exitCode={})],
    ],
)
def test_an_unreadable_list_of_vms_is_an_error_not_a_shorter_list(result):
    async def test(host, driver):
        host.answers["Host.getAllVmStats"] = lambda _: {"result": result}
        with pytest.raises(EngineError):
            await driver.list_vms(ctx())
        await driver.ping(ctx())

    connected(test)


def test_vms_are_read_whatever_form_their_numbers_have():
    vms = [
        up(),
        up(status="Migration Source", statusTime=2148521674, exitCode=1),
        up(status="Dreaming"),
        up(status="Down", exitCode=0, exitReason="4", exitMessage="moved"),
    ]

    async def test(host, driver):
        host.answers["Host.getAllVmStats"] = lambda _: {"result": vms}
        reports = await driver.list_vms(ctx())
        assert [report.state for report in reports] == ["up", "migrating", "unknown", "down"]
        assert [report.status_time for report in reports] == [7, 2148521674, 7, 7]
        assert [report.exit_reason for report in reports] == [None, None, None, 4]
        assert [report.exit_code for report in reports] == [None, None, None, 0]
        assert reports[3].exit_message == "moved"

    connected(test)


def test_capabilities_and_statistics_are_read_from_strings():
    async def test(host, driver):
        said = {"cpuIdle": "87.5", "memFree": "512", "vmActive": "2", "vmCount": 3}
        host.answers["Host.getStats"] = lambda _: {"result": said}
        machine = await driver.capabilities(ctx())
        assert (machine.cpu_cores, machine.cpu_threads, machine.cpu_sockets) == (8, 16, 2)
        assert machine.memory_bytes == 2048 * 1024 * 1024
        assert (machine.cpu_model, machine.version) == ("Abacus", "4.5.6")
        now = await driver.stats(ctx())
        assert (now.cpu_percent, now.vm_active, now.vm_count) == (12.5, 2, 3)
        assert now.memory_free_bytes == 512 * 1024 * 1024

    connected(test)


def test_answers_find_their_calls_in_any_order():
    async def test(host, driver):
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(driver.list_vms(ctx())) for _ in range(50)]
            requests = [await host.request("Host.getAllVmStats") for _ in calls]
            for number, request in reversed(list(enumerate(requests))):
                host.reply(request, result=[up(statusTime=number)])
        assert [call.result()[0].status_time for call in calls] == list(range(50))

    connected(test)


@pytest.mark.parametrize(
    "noise",
    [
        b"no JSON",
        b"\xff\xff",
        b"[" * 100_000,
        b"9" * 10_000,
        b"[]",
        b"null",
        b"{}",
        b'{"id": null, "error": {"code": -32700}}',
        b'{"id": ["list"], "result": true}',
        b'{"id": 5, "result": true}',
        b'{"id": "6f1a2c34-5b7d-4e8f-9a01-23456789abcd", "result": true}',
        b'{"method": 7}',
        b'{"method": "|virt|VM_status|x"}',
        b'{"method": "|virt|VM_status|x", "params": {"x": {"status": "Up"}}}',
        b'{"method": "|unheard|of|x", "params": 5}',
    ],
)
def test_noise_disturbs_nobody(noise):
    async def test(host, driver):
        host.message(noise)
        host.raw(encode(Frame("ERROR", {"message": "Subscription not available"})))
        host.raw(encode(Frame("RECEIPT", {"receipt-id": "1"})))
        await driver.ping(ctx())

    connected(test)


def test_an_answer_in_small_pieces_is_put_together():
    async def test(host, driver):
        del host.answers["Host.ping2"]
        async with asyncio.TaskGroup() as group:
            group.create_task(driver.ping(ctx()))
            request = await host.request("Host.ping2")
            body = json.dumps({"id": request["id"], "result": True}).encode()
            for byte in encode(Frame("MESSAGE", {"destination": "q"}, body)):
                host.raw(bytes([byte]))
                await asyncio.sleep(0)

    connected(test)


# --- No answer ---


def test_a_change_without_an_answer_may_have_happened_a_read_did_not():
    async def test(_host, driver):
        hasty = ctx(timeout_s=0.02)
        with pytest.raises(OutcomeUnknown, match=r"0\.02 s"):
            await driver.destroy_vm(hasty, VM_ID)
        with pytest.raises(HostUnreachable, match=r"0\.02 s"):
            await driver.stats(hasty)

    connected(test)


def test_a_late_answer_reaches_nobody():
    async def test(host, driver):
        with pytest.raises(HostUnreachable):
            await driver.list_vms(ctx(timeout_s=0.02))
        late = await host.request("Host.getAllVmStats")
        host.reply(late, result=[up(statusTime=1)])
        host.answers["Host.getAllVmStats"] = lambda _: {"result": [up(statusTime=2)]}
        assert (await driver.list_vms(ctx()))[0].status_time == 2

    connected(test)


def test_a_second_answer_to_one_call_is_dropped():
    async def test(host, driver):
        call = asyncio.ensure_future(driver.list_vms(ctx()))
        request = await host.request("Host.getAllVmStats")
        host.reply(request, result=[up()])
        host.reply(request, result=[])
        assert len(await call) == 1
        await driver.ping(ctx())

    connected(test)


def test_a_cancelled_call_leaves_the_connection_usable():
    async def test(host, driver):
        call = asyncio.ensure_future(driver.destroy_vm(ctx(), VM_ID))
        request = await host.request("VM.destroy")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        host.reply(request, result=True)
        await driver.ping(ctx())

    connected(test)


@pytest.mark.parametrize(
    "end",
    [
        lambda host: host.cut(),
        lambda host: host.raw(b"MESSAGE\ncontent-length:99999999999\n\n"),
        lambda host: host.raw(b"MESSAGE\nno colon\n\n\0"),
        lambda host: host.raw(b"x" * 100_000),
    ],
)
def test_a_lost_connection_ends_every_call_and_every_stream(end):
    async def test(host, driver):
        streams = [driver.events(), driver.events()]
        change = asyncio.ensure_future(driver.destroy_vm(ctx(), VM_ID))
        read = asyncio.ensure_future(driver.list_vms(ctx()))
        await host.request("VM.destroy")
        await host.request("Host.getAllVmStats")
        end(host)
        with pytest.raises(OutcomeUnknown):
            await change
        with pytest.raises(HostUnreachable):
            await read
        for stream in streams:
            assert [type(event) async for event in stream] == [Resync, Disconnected]
        with pytest.raises(HostUnreachable):
            await driver.destroy_vm(ctx(), VM_ID)

    connected(test)


def test_closing_ends_every_call():
    async def test(host, driver):
        change = asyncio.ensure_future(driver.destroy_vm(ctx(), VM_ID))
        await host.request("VM.destroy")
        await driver.close()
        with pytest.raises(OutcomeUnknown, match="closed by the engine"):
            await change
        await driver.close()

    connected(test)


# --- Heart-beats ---


def test_a_silent_host_is_found_out():
    async def test(_host, driver):
        async with asyncio.timeout(5):
            async for event in driver.events():
                if isinstance(event, Disconnected):
                    assert "silent" in event.reason

    connected(test, heartbeat="20,0")


def test_a_host_that_beats_is_kept_however_little_it_says():
    async def test(host, driver):
        for _ in range(20):
            host.raw(HEARTBEAT)
            await asyncio.sleep(0.01)  # the time that passes is what is tested
        await driver.ping(ctx())

    connected(test, heartbeat="40,0")


def test_the_driver_beats_several_times_in_each_interval():
    async def test(host, _driver):
        beats = len(host.heard)
        began = asyncio.get_running_loop().time()
        await host.until(lambda: len(host.heard) >= beats + 4)
        assert asyncio.get_running_loop().time() - began < 4 * 0.3 / 2
        assert host.heard[beats:].strip(b"\n") == b""

    connected(test, heartbeat="0,300")


def test_heartbeats_end_with_the_connection():
    async def test(_host, driver):
        await driver.close()
        timers = driver._rpc._stomp._timers
        assert len(timers) == 2
        assert all(timer.cancelled() for timer in timers)

    connected(test, heartbeat="5000,5000")


def test_the_wanted_heartbeat_is_announced():
    async def test(host, _driver):
        assert host.frames[0].headers["heart-beat"] == "2500,2500"
        assert host.frames[0].headers["accept-version"] == "1.2"

    connected(test, heartbeat_s=2.5)


# --- Events ---


def test_every_stream_gets_every_event_after_its_resync():
    async def test(host, driver):
        streams = [driver.events(), driver.events()]
        host.event(
            f"|virt|VM_status|{VM_ID}", {str(VM_ID): {"status": "Up"}, "notify_time": 2148521674}
        )
        host.event(
            f"|virt|VM_status|{VM_ID}",
            {str(VM_ID): {"status": "Down", "exitReason": 7, "statusTime": "9"}, "notify_time": 8},
        )
        for stream in streams:
            first, second, third = [await anext(stream) for _ in range(3)]
            assert first == Resync()
            assert isinstance(second, VmChanged)
            assert (second.report.vm_id, second.report.state) == (VM_ID, "up")
            assert second.report.status_time == 2148521674
            assert isinstance(third, VmChanged)
            assert (third.report.exit_reason, third.report.status_time) == (7, 9)

    connected(test)


@pytest.mark.parametrize("said", [{"pauseCode": "NOERR"}, "Up", {"status": "Up", "statusTime": []}])
def test_an_event_that_makes_no_sense_is_a_reason_to_list_again(said):
    async def test(host, driver):
        stream = driver.events()
        assert await anext(stream) == Resync()
        host.event(f"|virt|VM_status|{VM_ID}", {str(VM_ID): said})
        assert await anext(stream) == Resync()

    connected(test)


def test_a_slow_reader_gets_a_resync_for_what_it_missed(monkeypatch):
    monkeypatch.setattr(events, "MAX_UNREAD_EVENTS", 10)

    async def test(host, driver):
        slow, fast = driver.events(), driver.events()
        seen = []
        for number in range(25):
            said = {str(VM_ID): {"status": "Up", "statusTime": number}}
            host.event(f"|virt|VM_status|{VM_ID}", said)
            while not (isinstance(event := await anext(fast), VmChanged)):
                assert event == Resync()
            seen.append(event.report.status_time)
        assert seen == list(range(25))
        host.cut()
        left = [event async for event in slow]
        assert left[0] == Resync()
        assert isinstance(left[-1], Disconnected)
        assert len(left) <= 12
        times = [event.report.status_time for event in left if isinstance(event, VmChanged)]
        assert times == list(range(25 - len(times), 25))

    connected(test)


def test_a_stream_that_nobody_reads_any_more_costs_nothing():
    async def test(_host, driver):
        stream = driver.events()
        assert len(driver._broadcast._streams) == 1
        del stream
        gc.collect()
        assert len(driver._broadcast._streams) == 0

    connected(test)
