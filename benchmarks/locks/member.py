"""A process of members, to be killed or asked to leave: `python -m benchmarks.locks.member ORDERS`.

It tells what happens as lines of JSON, each with the time of the machine's clock, and obeys one
word on its input: `leave`. When its input ends, it ends.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from typing import Any

import uvloop

from benchmarks.members import key_of, member
from engine_pg.clock import boottime
from engine_pg.cluster.leaders import Singleton
from engine_pg.cluster.membership import Lease, Membership


@dataclass(frozen=True, slots=True)
class Orders:
    """What one process is to do: which members to be, what each offers to lead, what to hold."""

    url: str
    nodes: Sequence[str]
    lease: Lease
    leaderships: Sequence[str] = ()
    lock: str = ""

    def text(self) -> str:
        """Return the orders as the process takes them."""
        return json.dumps(asdict(self))


def _read(text: str) -> Orders:
    given: dict[str, Any] = json.loads(text)
    lease = Lease(**given.pop("lease"))
    return Orders(**given, lease=lease)


def _tell(event: str, **more: str) -> None:
    print(json.dumps({"event": event, "at": boottime(), **more}), flush=True)


def _singleton(name: str) -> Singleton:
    async def lead(_leadership: object) -> None:
        _tell("leads", name=name)
        await asyncio.get_running_loop().create_future()

    return lead


async def _obey(orders: Orders) -> None:
    loop = asyncio.get_running_loop()
    singletons = {name: _singleton(name) for name in orders.leaderships}
    async with AsyncExitStack() as stack:
        members: list[Membership] = []
        for node in orders.nodes:
            opened = member(orders.url, node, lease=orders.lease, singletons=singletons)
            members.append(await stack.enter_async_context(opened))
        if orders.lock:
            await members[0].locks.acquire(key_of(orders.lock))
        _tell("ready")
        if (await loop.run_in_executor(None, sys.stdin.readline)).strip() == "leave":
            _tell("leaves")
            for each in members:
                await each.leave()
            _tell("left")


if __name__ == "__main__":
    logging.getLogger("engine_pg").setLevel(logging.ERROR)  # leaderships move while members come
    uvloop.run(_obey(_read(sys.argv[1])))
