"""One failover under load, and what is to be said of it.

Engines start and stop VMs, members work under their locks, clients write and read: while the
primary is lost, until another one takes its place, and until all is whole again. Then everything
that was acknowledged is looked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final

from engine_pg.clock import boottime
from engine_pg.demo.story import Scene, play
from engine_pg.demo.verdict import Figure
from engine_pg.errors import Unavailable
from engine_pg.supervisor import Background
from lab import faults, judge
from lab.askers import Askers
from lab.faults import Kind
from lab.seen import Failover
from lab.stage import APART, Stage

VMS: Final = 2
_BOUND_S: Final = 60.0
_POLL_S: Final = 0.05
_REFUSALS: Final = 3


async def fail_over(stage: Stage, kind: Kind, seed: int) -> Failover:
    """Play one failover and judge it."""
    await _ready(stage)
    seen = Failover(kind)
    before = {who: stage.noted(who, "holds")[-1] for who in judge.HOLDERS}

    async def incident(scene: Scene) -> Sequence[Figure]:
        askers = Askers(stage.target)
        async with askers.reading():
            await _happen(stage, scene, seen, askers)
        seen.asked = askers.asked
        return []

    seen.report = await play(incident, stage.target, vms=VMS, seed=seed, tell=lambda _: None)
    seen.lost = await judge.lost(stage)
    seen.violations = await judge.violations(stage, seen, before)
    return seen


async def _happen(stage: Stage, scene: Scene, seen: Failover, askers: Askers) -> None:
    await stage.mend()  # a busy machine may have lost a standby, or failed over by itself
    seen.old = await stage.primary()
    seen.began = boottime()
    switched = seen.kind == "switchover"
    async with AsyncExitStack() as exits, asyncio.TaskGroup() as group:
        watched = group.create_task(_writable(stage, seen))
        await faults.begin(seen.kind, stage, seen.old)
        seen.done = seen.began if switched else boottime()
        if seen.kind == "partition":
            await exits.enter_async_context(askers.writing(APART))
            background = await exits.enter_async_context(Background())
            background.start(_witness(stage, seen), name="witness of the old primary")
        seen.new, seen.writable = await watched
        if stuck := await scene.load.each_acknowledged(1, _BOUND_S):
            raise Unavailable(f"{len(stuck)} VMs get no command acknowledged any more")
        await _until(lambda: _goes_on(stage, seen, askers), "work under the locks")
        seen.healed = boottime()
    await faults.end(seen.kind, stage, seen.old)
    await stage.mend()
    seen.whole = boottime()


async def _writable(stage: Stage, seen: Failover) -> tuple[str, float]:
    """Wait until a primary takes writes after the fault; return which, and since when."""
    if seen.kind in faults.UNSEATING:
        return await stage.taken_over(seen.old)

    def acknowledged() -> list[float]:
        noted = stage.noted("near writer", "acknowledged", since=seen.began)
        return [entry["at"] for entry in noted if seen.done and entry["began"] >= seen.done]

    await _until(lambda: bool(acknowledged()), "an acknowledged write")
    return seen.old, acknowledged()[0]


async def _witness(stage: Stage, seen: Failover) -> None:
    """See until when the old primary takes writes."""
    while True:
        if await stage.is_open(seen.old):
            seen.open_until = boottime()
        await asyncio.sleep(_POLL_S)


def _goes_on(stage: Stage, seen: Failover, askers: Askers) -> bool:
    """Say whether all has been seen that is to be seen before the cut ends."""
    worked = stage.noted("near holder", "worked", since=seen.writable)
    if seen.kind != "partition":
        return bool(worked)
    refused = [each for each in askers.asked if each.kind == "write"]
    inherited = stage.noted("near holder", "got", since=seen.done)
    return bool(worked and inherited) and len(refused) >= _REFUSALS


async def _ready(stage: Stage) -> None:
    """Wait until both sides work under locks, and the far side has the contested one."""

    def ready() -> bool:
        for who in judge.HOLDERS:
            holds, worked = stage.noted(who, "holds"), stage.noted(who, "worked")
            if not holds or not worked or worked[-1]["at"] < holds[-1]["at"]:
                return False
        if not all(stage.noted(who, "acknowledged") for who in judge.WRITERS):
            return False
        got = stage.noted("far holder", "got")
        ended = stage.noted("far holder", "ended")
        inherited = stage.noted("near holder", "got")
        lives = [each[-1]["at"] for each in (ended, inherited) if each]
        return bool(got) and got[-1]["at"] > max(lives, default=0.0)

    await _until(ready, "the holders of locks")


async def _until(happened: Callable[[], bool], what: str) -> None:
    deadline = boottime() + _BOUND_S
    while not happened():
        if boottime() > deadline:
            raise Unavailable(f"waited {_BOUND_S:g} s for {what}")
        await asyncio.sleep(_POLL_S)
