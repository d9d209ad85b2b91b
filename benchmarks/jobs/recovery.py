"""A worker is killed in the middle of a command: how soon another one begins it again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks.jobs.contender import Contender, Order
from benchmarks.jobs.rounds import NUMBERS, Place, until_ready
from benchmarks.jobs.workers import Worker, workers
from engine_pg.clock import boottime

BOUND_S: Final = 75.0
_HOLD_S: Final = 600.0


async def recoveries(
    chosen: Mapping[str, tuple[Contender, str]], count: int = 1
) -> dict[str, dict[str, Any]]:
    """Measure all contenders at once: while they wait, they do nothing."""
    async with asyncio.TaskGroup() as group:
        works = {
            name: group.create_task(_recovery(one, url, count))
            for name, (one, url) in chosen.items()
        }
    return {name: work.result() for name, work in works.items()}


async def _recovery(one: Contender, url: str, count: int) -> dict[str, Any]:
    took_s: list[float | None] = []
    for _ in range(count):
        async with one.open(url) as client, workers(one, url, 2) as pair:
            await until_ready(Place(client, pair))
            number = next(NUMBERS)
            await client.submit(Order(number, hold_s=_HOLD_S))
            victim = await _beginner(pair, number)
            await victim.kill()
            killed_at = boottime()
            survivor = next(each for each in pair if each is not victim)
            try:
                took_s.append(round(await survivor.when(number, BOUND_S) - killed_at, 3))
            except TimeoutError:
                took_s.append(None)
    known = [each for each in took_s if each is not None]
    worst = max(known) if len(known) == count else None
    return {"worst_s": worst, "times_s": took_s, "bound_s": BOUND_S, "how": one.recovers}


async def _beginner(pair: Sequence[Worker], number: int) -> Worker:
    async with asyncio.timeout(BOUND_S):
        while True:
            for each in pair:
                if number in each.began:
                    return each
            await asyncio.sleep(0.01)
