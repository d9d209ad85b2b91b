"""What it costs to hold many locks on one node, and how fast a contended one changes hands."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from benchmarks.locks.contender import PATIENCE_S, Contender, Node
from benchmarks.locks.rounds import ROUNDS, rotated, spread_ms
from engine_pg.clock import boottime

MANY: Final = 10_000
_AT_ONCE: Final = 64
_ASKED_S: Final = (0.02, 0.12)  # how long the other has waited: any phase of a 0.1 s poll
_GIVE_BACK_S: Final = 300.0


async def handovers(nodes: Mapping[str, tuple[Node, Node]], count: int) -> dict[str, Any]:
    """Pass one key to and fro between two nodes; count from the release to the other's grant."""
    latencies_s: dict[str, list[float]] = {name: [] for name in nodes}
    each = max(1, count // ROUNDS)
    for number in range(ROUNDS):
        for name in rotated(list(nodes), number):
            latencies_s[name] += await _passed(nodes[name], each)
    return {name: {"count": len(each), **spread_ms(each)} for name, each in latencies_s.items()}


async def _passed(pair: tuple[Node, Node], count: int) -> list[float]:
    holder, waiter = pair
    latencies_s: list[float] = []
    held = await holder.acquire("handed over", PATIENCE_S)
    for _ in range(count):
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(_granted(waiter))
            await asyncio.sleep(random.uniform(*_ASKED_S))
            released_at = boottime()
            await holder.release(held)
            held, granted_at = await waiting
        latencies_s.append(granted_at - released_at)
        holder, waiter = waiter, holder
    await holder.release(held)
    await holder.settle()
    return latencies_s


async def _granted(node: Node) -> tuple[Any, float]:
    held = await node.acquire("handed over", PATIENCE_S)
    return held, boottime()


async def holdings(
    contenders: Mapping[str, Contender], nodes: Mapping[str, tuple[Node, Node]], count: int
) -> dict[str, Any]:
    """Let one node of each contender take many locks, and give them back."""
    return {
        name: {"why_not": contenders[name].keeps_many}
        if contenders[name].keeps_many
        else await _held(one, count)
        for name, (one, _) in nodes.items()
    }


async def _held(node: Node, count: int) -> dict[str, Any]:
    before = await node.footprint()
    held: list[Any] = []
    keys = iter(range(count))

    async def taker() -> None:
        for key in keys:
            held.append(await node.acquire(f"one of many {key}"))

    async def giver() -> None:
        while held:
            await node.release(held.pop())

    began = boottime()
    await _side_by_side(taker)
    taken_at = boottime()
    after = await node.footprint()
    giving_from = boottime()
    async with asyncio.timeout(_GIVE_BACK_S):
        await _side_by_side(giver)
        await node.settle()
    return {
        "count": count,
        "take_s": round(taken_at - began, 3),
        "give_back_s": round(boottime() - giving_from, 3),
        "memory_bytes": _more(before["memory_bytes"], after["memory_bytes"]),
        "stored_bytes": _more(before["stored_bytes"], after["stored_bytes"]),
        "connections": after["connections"],
    }


async def _side_by_side(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(work())


def _more(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else after - before
