"""What is measured with workers that stand: commands a second, and submission to start."""

from __future__ import annotations

import asyncio
import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.jobs.contender import Client, Contender, Order
from benchmarks.jobs.workers import Worker, workers
from benchmarks.locks.rounds import rotated, spread_ms
from engine_pg.clock import boottime

CLIENTS: Final = 16
"""Tasks of the one client process that submit at once, each waiting for its commit."""
ROUNDS: Final = 5
_LOOK_S: Final = 0.02
_BOUND_S: Final = 120.0
_PAUSE_S: Final = 0.023


@dataclass(frozen=True, slots=True)
class Place:
    """A contender at work: its client, its workers."""

    client: Client
    workers: Sequence[Worker]

    def began(self, number: int) -> float | None:
        """Return when a command began, wherever that was."""
        found = [one.began[number] for one in self.workers if number in one.began]
        return min(found, default=None)


NUMBERS: Final[Iterator[int]] = itertools.count(1)


async def final(client: Client) -> None:
    """Wait until nothing is left to do."""
    async with asyncio.timeout(_BOUND_S):
        while await client.remaining():  # noqa: ASYNC110 - nobody tells all of them
            await asyncio.sleep(_LOOK_S)


async def until_ready(place: Place) -> None:
    """Submit until each worker has begun something: it is up then, and warm."""
    async with asyncio.timeout(_BOUND_S):
        while not all(one.began for one in place.workers):
            for _ in range(4 * len(place.workers)):
                await place.client.submit(Order(next(NUMBERS)))
            await asyncio.sleep(0.1)
    await final(place.client)


async def many(client: Client, count: int) -> float:
    """Submit so many commands, and return how many were final a second."""
    numbers = iter(range(count))
    began = boottime()

    async def submitting() -> None:
        for _ in numbers:
            await client.submit(Order(next(NUMBERS)))

    async with asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(submitting())
    await final(client)
    return count / (boottime() - began)


async def starts_s(place: Place, count: int) -> list[float]:
    """Submit one command at a time, and return how long after the call each began."""
    submitted: dict[int, float] = {}
    for turn in range(count):
        number = next(NUMBERS)
        submitted[number] = boottime()
        await place.client.submit(Order(number))
        await asyncio.sleep(_PAUSE_S + turn % 7 / 1000)  # at any phase of a poll
    await final(place.client)
    began = {number: place.began(number) for number in submitted}
    return [at - submitted[number] for number, at in began.items() if at is not None]


async def standing(
    chosen: Mapping[str, tuple[Contender, str]], nodes: int, seconds: float
) -> dict[str, Any]:
    """Measure all contenders with so many workers each, in alternating rounds."""
    async with AsyncExitStack() as stack:
        places: dict[str, Place] = {}
        for name, (one, url) in chosen.items():
            client = await stack.enter_async_context(one.open(url))
            running = await stack.enter_async_context(workers(one, url, nodes))
            places[name] = Place(client, running)
        for place in places.values():
            await until_ready(place)
        rates: dict[str, list[float]] = {name: [] for name in places}
        started: dict[str, list[float]] = {name: [] for name in places}
        for turn in range(ROUNDS):
            for name in rotated(list(places), turn):
                rates[name].append(await many(places[name].client, round(120 * seconds)))
                started[name] += await starts_s(places[name], round(8 * seconds))
    return {
        name: {
            "commands_per_s": round(statistics.median(rates[name]), 1),
            "rates": [round(rate, 1) for rate in rates[name]],
            "submit_start": spread_ms(started[name]),
        }
        for name in places
    }
