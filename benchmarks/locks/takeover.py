"""How long until another member has what one had that was killed, or that left.

A survivor waits for a lock that the victim, a process of its own, holds, and offers to lead what
the victim leads. Counted from the kill, or from the victim's call of `leave`, to the later of the
survivor's grant and its last start of a leadership. Several such pairs go on side by side, each in
a database of its own: nearly all of the time is waiting for leases.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final, Literal

from benchmarks.ground import Ground
from benchmarks.locks.children import Child, child
from benchmarks.locks.member import Orders
from benchmarks.locks.rounds import percentile, spread_s
from benchmarks.members import SHORT, key_of, member
from engine_pg.clock import boottime
from engine_pg.cluster.leaders import Singleton
from engine_pg.cluster.membership import Membership
from engine_pg.ids import new_id

NAMES: Final = tuple(f"benchmark/{number}" for number in range(8))
How = Literal["crash", "leave"]
_PAIRS: Final = 4
_BOUND_S: Final = 30.0
_POLL_S: Final = 0.002
_SETTLING_S: Final = 0.3  # the victim's last leaderships arrive


@dataclass(frozen=True, slots=True)
class Taken:
    """How long one takeover took."""

    lock_s: float
    leadership_s: float

    @property
    def both_s(self) -> float:
        """Until the survivor had everything."""
        return max(self.lock_s, self.leadership_s)


async def takeovers(ground: Ground, how: How, count: int) -> dict[str, Any]:
    """Repeat a takeover and return how long they took."""
    taken: list[Taken] = []
    left = iter(range(count))
    with ExitStack() as stack:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(_PAIRS, count)):
                url = stack.enter_context(ground.database())
                group.create_task(_repeated(url, how, lambda: next(left, None), taken))
    over_s = [one.both_s - SHORT.ttl_s for one in taken]
    return {
        "count": len(taken),
        "ttl_s": SHORT.ttl_s,
        **spread_s([one.both_s for one in taken]),
        "lock": spread_s([one.lock_s for one in taken]),
        "leadership": spread_s([one.leadership_s for one in taken]),
        **({"over_ttl_p99_s": percentile(over_s, 99)} if how == "crash" else {}),
    }


class Survivor:
    """Who takes over, and when each leadership last began on it."""

    def __init__(self) -> None:
        self.led_at: dict[str, float] = {}

    def singleton(self, name: str) -> Singleton:
        """Return the work of a leadership: to note when it begins."""

        async def lead(_leadership: object) -> None:
            self.led_at[name] = boottime()
            await asyncio.get_running_loop().create_future()

        return lead

    async def leads(self, names: set[str], after: float) -> float:
        """Wait until all names were won after a time, and return when the last one was."""
        async with asyncio.timeout(_BOUND_S):
            while True:
                times = [self.led_at.get(name, 0.0) for name in names]
                if min(times, default=after) >= after:
                    return max(times, default=after)
                await asyncio.sleep(_POLL_S)


async def _repeated(url: str, how: How, more: Callable[[], int | None], taken: list[Taken]) -> None:
    survivor = Survivor()
    singletons = {name: survivor.singleton(name) for name in NAMES}
    async with member(url, "survivor", lease=SHORT, singletons=singletons) as membership:
        while more() is not None:
            taken.append(await _once(url, how, survivor, membership))


async def _once(url: str, how: How, survivor: Survivor, membership: Membership) -> Taken:
    while True:
        name = f"victim {new_id()}"
        orders = Orders(url, [name], SHORT, leaderships=NAMES, lock=name)
        async with child(orders) as victim:
            await victim.when("ready")
            if await _leads_some(victim):
                return await _taken(how, victim, survivor, membership, name)


async def _leads_some(victim: Child) -> bool:
    try:
        await victim.when("leads", 5.0)
    except TimeoutError:  # its name is preferred for nothing: another one
        return False
    await asyncio.sleep(_SETTLING_S + random.uniform(0, SHORT.heartbeat_s))  # any phase of it
    return True


async def _taken(
    how: How, victim: Child, survivor: Survivor, membership: Membership, lock: str
) -> Taken:
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(_grant_and_release(membership, lock))
        await asyncio.sleep(random.uniform(_SETTLING_S, 2 * _SETTLING_S))
        names, began = set(victim.leads), boottime()
        if how == "crash":
            victim.kill()
        else:
            victim.ask_to_leave()
            began = await victim.when("leaves")
        led_at = await survivor.leads(names, began)
        granted_at = await waiting
    return Taken(granted_at - began, led_at - began)


async def _grant_and_release(membership: Membership, lock: str) -> float:
    hold = await membership.locks.acquire(key_of(lock), wait_s=_BOUND_S)
    granted_at = boottime()
    membership.locks.release(hold)
    return granted_at
