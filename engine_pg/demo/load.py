"""Clients at work: VMs that are started and stopped over plain REST, through all nodes in turn.

Every answer to an action names its job; that is an acknowledgement, and what was acknowledged is
remembered. A request that finds no answer is sent again to the next node under its old key.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import re
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final
from uuid import UUID

from engine_pg.clock import Clock, boottime
from engine_pg.demo.furnish import CLUSTER
from engine_pg.demo.rest import Client, Heard, element, named
from engine_pg.errors import NotFound, OutcomeUnknown, Rejected, Unavailable
from engine_pg.ids import new_id

_MEMORY_BYTES: Final = 128 * 1024**2
_AT_ONCE: Final = 8
_THINK_S: Final = (0.05, 0.35)
_NEXT: Final = {"down": "start", "powering_up": "stop", "up": "stop"}
_VARYING: Final = re.compile(r"[0-9a-f-]{36}|demo-[0-9a-f]+-\d+|\d+\.\d+")
_CLEANING_S: Final = 60.0
_CLEANING_POLL_S: Final = 0.25


@dataclass(slots=True)
class Tally:
    """What the clients met with."""

    requests: int = 0
    failed: list[Heard] = field(default_factory=list[Heard])
    refused: Counter[str] = field(default_factory=Counter[str])
    acknowledged: dict[UUID, str] = field(default_factory=dict[UUID, str])
    silence_s: float = 0.0
    clock: Clock = boottime
    _answered_at: float = math.inf

    def hear(self, heard: Heard) -> None:
        """Count one try of a request."""
        self.requests += 1
        if heard.status == 0 or heard.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self.failed.append(heard)
        elif heard.status < HTTPStatus.BAD_REQUEST:
            now = self.clock()
            self.silence_s = max(self.silence_s, now - self._answered_at)
            self._answered_at = now


class Load:
    """Some VMs, each driven by a client of its own while `running` is entered."""

    def __init__(
        self, client: Client, vms: Sequence[str], tally: Tally, dice: random.Random
    ) -> None:
        self.vms = vms
        self.tally = tally
        self._client = client
        self._dice = dice
        self._turns = itertools.count()
        self._enough = asyncio.Event()
        self._done: Counter[str] = Counter()
        self._moved = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Drive the VMs beside a block; each finishes the turn that it is in."""
        async with asyncio.TaskGroup() as group:
            for vm in self.vms:
                group.create_task(self._drive(vm))
            try:
                yield
            finally:
                self._enough.set()

    async def each_acknowledged(self, more: int, bound_s: float) -> list[str]:
        """Wait until every VM got so many more commands acknowledged; return those that did not."""
        wanted = {vm: self._done[vm] + more for vm in self.vms}
        deadline = boottime() + bound_s
        while waiting := [vm for vm, count in wanted.items() if self._done[vm] < count]:
            self._moved.clear()
            try:
                async with asyncio.timeout(deadline - boottime()):
                    await self._moved.wait()
            except TimeoutError:
                break
        return waiting

    async def _drive(self, vm: str) -> None:
        while not self._enough.is_set():
            await asyncio.sleep(self._dice.uniform(*_THINK_S))
            try:
                await self._turn(vm)
            except Rejected as refusal:
                self.tally.refused[_VARYING.sub("...", str(refusal))] += 1
            except (Unavailable, OutcomeUnknown):
                continue  # heard and counted; the next turn looks what became of it

    async def _turn(self, vm: str) -> None:
        found = await self._client.get(f"/vms/{vm}", first=next(self._turns))
        action = _NEXT.get(found.findtext("status") or "")
        if action is None:
            return
        answer = await self._client.post(
            f"/vms/{vm}/{action}", element("action"), first=next(self._turns), key=str(new_id())
        )
        job = answer.find("job")
        if job is not None:
            self.tally.acknowledged[UUID(job.get("id"))] = action
            self._done[vm] += 1
            self._moved.set()


@dataclass(slots=True)
class DemoVms:
    """The VMs that were made for a story, and those that could not be removed after it."""

    made: list[str] = field(default_factory=list[str])
    left: list[str] = field(default_factory=list[str])


@asynccontextmanager
async def demo_vms(
    client: Client, count: int, tell: Callable[[str], None]
) -> AsyncGenerator[DemoVms]:
    """Make VMs for a story; stop and remove them after it."""
    mark = str(new_id())[:8]
    vms = DemoVms()
    room = asyncio.Semaphore(_AT_ONCE)

    async def make(number: int) -> None:
        async with room:
            vm = element(
                "vm",
                element("name", f"demo-{mark}-{number:02}"),
                element("memory", str(_MEMORY_BYTES)),
                named("cluster", CLUSTER),
                named("template", "Blank"),
            )
            answer = await client.post("/vms", vm, first=number, key=str(new_id()))
            vms.made.append(answer.get("id") or "")

    async def remove(turn: int, vm: str) -> None:
        async with room:
            try:
                await _remove(client, vm, turn)
            except Unavailable as problem:
                vms.left.append(vm)
                tell(str(problem))

    try:
        async with asyncio.TaskGroup() as group:
            for number in range(1, count + 1):
                group.create_task(make(number))
        yield vms
    finally:
        tell(f"Removing {len(vms.made)} VMs")
        async with asyncio.TaskGroup() as group:
            for turn, vm in enumerate(vms.made):
                group.create_task(remove(turn, vm))


async def _remove(client: Client, vm: str, turn: int) -> None:
    deadline = boottime() + _CLEANING_S
    path = f"/vms/{vm}"
    while True:
        try:
            found = await client.get(path, first=turn)
            if found.findtext("status") == "down":
                return await client.delete(path, first=turn, key=str(new_id()))
            await client.post(f"{path}/stop", element("action"), first=turn, key=str(new_id()))
        except NotFound:
            return None
        except (Rejected, Unavailable, OutcomeUnknown) as problem:
            if boottime() > deadline:
                raise Unavailable(f"VM {vm} cannot be removed: {problem}") from problem
        await asyncio.sleep(_CLEANING_POLL_S)
