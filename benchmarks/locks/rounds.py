"""Rounds: contenders measured in turn, and what follows from their figures. No database here."""

from __future__ import annotations

import asyncio
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.locks.contender import Node
from engine_pg.clock import boottime

CLIENTS: Final = (1, 64, 500)
ROUNDS: Final = 10
_WARM_UP_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Round:
    """What one round measured."""

    latencies_s: Sequence[float]
    took_s: float

    @property
    def rate(self) -> float:
        """Pairs per second."""
        return len(self.latencies_s) / self.took_s


Rounds = Mapping[tuple[str, int], Sequence[Round]]


async def measured(node: Node, clients: int, seconds: float) -> Round:
    """Let so many clients lock and unlock, each its own key, for so long."""
    latencies_s: list[float] = []
    began = boottime()

    async def client(key: str) -> None:
        now = boottime()
        until = max(began + seconds, now + 0.001)  # once at least, however late it was let in
        while now < until:
            await node.release(await node.acquire(key))
            before, now = now, boottime()
            latencies_s.append(now - before)

    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(client(str(number)))
    await node.settle()
    return Round(latencies_s, boottime() - began)


async def throughput(
    nodes: Mapping[str, Node], seconds: float, clients: Sequence[int] = CLIENTS
) -> dict[str, Any]:
    """Measure every contender with every number of clients, in alternating rounds."""
    rounds: dict[tuple[str, int], list[Round]] = {}
    for node in nodes.values():
        await measured(node, max(clients), min(seconds, _WARM_UP_S))
    for number in range(ROUNDS):
        for many in clients:
            for name in rotated(list(nodes), number):
                one = await measured(nodes[name], many, seconds / ROUNDS)
                rounds.setdefault((name, many), []).append(one)
    return {
        "rounds": ROUNDS,
        "ratios": ratios(rounds, nodes, clients),
        **{name: {str(many): figures(rounds[name, many]) for many in clients} for name in nodes},
    }


def rotated(names: Sequence[str], number: int) -> list[str]:
    """Return the names with another one first in each round: nobody always goes first."""
    start = number % len(names)
    return [*names[start:], *names[:start]]


def ratios(rounds: Rounds, peers: Iterable[str], clients: Iterable[int]) -> dict[str, float | None]:
    """Return how many times as many pairs ours made, as `PEER_CLIENTS`; None: not measured."""
    return {
        f"{peer}_{many}": _ratio(rounds.get(("ours", many), ()), rounds.get((peer, many), ()))
        for peer in peers
        if peer != "ours"
        for many in clients
    }


def _ratio(ours: Sequence[Round], others: Sequence[Round]) -> float | None:
    """Return the median of the ratios within each round: drifts of the machine cancel out."""
    if not ours or not others:
        return None
    pairs = zip(ours, others, strict=True)
    return round(statistics.median(one.rate / other.rate for one, other in pairs), 3)


def figures(rounds: Sequence[Round]) -> dict[str, float | None]:
    """Return what all rounds of one contender amount to."""
    latencies_s = [latency for one in rounds for latency in one.latencies_s]
    return {
        "pairs": len(latencies_s),
        "pairs_per_s": round(len(latencies_s) / sum(one.took_s for one in rounds), 1),
        **spread_ms(latencies_s),
    }


def spread_ms(times_s: Sequence[float]) -> dict[str, float | None]:
    """Return the percentiles of some times, in milliseconds."""
    spread = spread_s(times_s)
    return {
        f"{name[:-2]}_ms": None if value is None else round(1000 * value, 3)
        for name, value in spread.items()
    }


def spread_s(times_s: Sequence[float]) -> dict[str, float | None]:
    """Return the percentiles of some times, in seconds."""
    return {
        "p50_s": percentile(times_s, 50),
        "p99_s": percentile(times_s, 99),
        "max_s": percentile(times_s, 100),
    }


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Return the nearest rank: a value that was measured, never one beyond; None of nothing."""
    if not values:
        return None
    rank = max(1, math.ceil(len(values) * percent / 100))
    return round(sorted(values)[rank - 1], 6)
