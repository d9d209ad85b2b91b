from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import pytest

from engine_pg.simulator.answers import CallFailed
from engine_pg.simulator.connection import Incoming, Origin
from engine_pg.simulator.faults import Hold, Holds
from engine_pg.simulator.gate import Gate
from engine_pg.simulator.machine import Boot, Machine, Spec, Timing
from engine_pg.simulator.verbs import VERBS
from engine_pg.simulator.workers import AT_WORK, Call, Workers

XML = "<domain><uuid>{}</uuid></domain>"


class Host:
    """Workers with a machine, and a disk that answers when told to."""

    def __init__(self, *, disk_answers: bool = True, **options) -> None:
        self.records: list[tuple[str, dict]] = []
        self.answers: list[object] = []
        self.asked, self.disk = asyncio.Event(), asyncio.Event()
        if disk_answers:
            self.disk.set()
        spec = Spec(1, UUID(int=1), timing=Timing(work_s=0), **options)
        later = asyncio.get_running_loop().call_later
        self.machine = Machine(spec, Boot("1", 0.0), self, later)
        self.holds = Holds()
        self.workers = Workers(self.machine, Gate(), self.holds, self.record, self.durable)

    def record(self, kind, **fields) -> int:
        self.records.append((kind, fields))
        return len(self.records)

    def announce(self, vm) -> None:
        pass

    async def durable(self) -> None:
        self.asked.set()
        await self.disk.wait()

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.records]

    async def carry(self, method: str, token: int | None = 1, **arguments) -> None:
        key = {"key": "vm/1", "mode": "exclusive", "token": token}
        fence = None if token is None else [key]
        incoming = Incoming(b"", None, "", Origin(1, "somebody"))
        call = Call("1", method, VERBS[method], arguments, fence, None, incoming, 0.0)
        await self.workers.carry(call, self.answers.append)

    async def create(self, token: int | None = 1) -> None:
        await self.carry("VM.create", token, vmID="", vmParams={"xml": XML.format(uuid4())})

    def codes(self) -> list[int]:
        return [a.code if isinstance(a, CallFailed) else 0 for a in self.answers]


def test_a_change_is_on_disk_before_it_is_answered():
    async def scenario():
        host = Host(disk_answers=False)
        async with asyncio.TaskGroup() as group:
            group.create_task(host.create())
            await host.asked.wait()
            assert host.kinds() == ["call_begun", "vm_started", "call_ended"]
            assert host.answers == []
            host.disk.set()
        assert host.codes() == [0]

    asyncio.run(scenario())


def test_a_question_does_not_wait_for_the_disk():
    async def scenario():
        host = Host(disk_answers=False)
        await host.carry("Host.ping2")
        assert host.answers == [True]

    asyncio.run(scenario())


def test_what_waits_for_a_worker_meets_the_gate_when_it_gets_one():
    async def scenario():
        host = Host(disk_answers=False)
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_WORK):
                group.create_task(host.create(5))
            group.create_task(host.carry("Host.ping2", 6))
            group.create_task(host.create(5))
            await host.asked.wait()
            assert host.kinds().count("call_begun") == AT_WORK
            host.disk.set()
        assert sorted(host.codes()) == [0] * (AT_WORK + 1) + [4901]
        assert len(host.machine.vms) == AT_WORK

    asyncio.run(scenario())


def test_what_waits_for_a_worker_is_lost_when_the_host_reboots():
    async def scenario():
        host = Host(disk_answers=False)
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_WORK + 3):
                group.create_task(host.create())
            await host.asked.wait()
            host.machine.lose_vms()
            host.machine.boot = Boot("2", 0.0)
            host.disk.set()
        assert host.kinds().count("vm_started") == AT_WORK
        assert host.kinds().count("call_unanswered") == AT_WORK + 3
        assert host.answers == []

    asyncio.run(scenario())


@pytest.mark.parametrize(("when", "acted"), [("before", 0), ("after", 1)])
def test_a_call_that_hangs_acts_by_the_side_it_hangs_on(when, acted):
    async def scenario():
        host = Host()
        host.holds.add(Hold(when, frozenset({"VM.create"}), None))
        await host.create()
        assert host.answers == []
        assert len(host.machine.vms) == acted
        host.holds.clear()
        await host.create()
        assert host.codes() == [0]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("fencing", "token", "code"),
    [("all", 4, 4901), ("all", None, 11), ("all", "x", -32602), ("none", 4, 0), ("none", "x", 0)],
)
def test_who_is_refused_depends_on_the_fencing(fencing, token, code):
    async def scenario():
        host = Host(fencing=fencing)
        await host.create(5)
        await host.create(token)
        assert host.codes() == [0, code]
        begun = [fields for kind, fields in host.records if kind == "call_begun"]
        assert begun[1]["would_be_stale"] == (token == 4)
        assert begun[1]["refused"] == (code != 0)

    asyncio.run(scenario())
