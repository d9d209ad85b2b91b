"""Processes of members as the benchmark sees them: started, listened to, killed."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

from benchmarks.locks.member import Orders
from engine_pg.supervisor import Background

_BOUND_S: Final = 60.0


class Child:
    """One process of members; `leads` has the names that it told it leads."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._told: dict[str, float] = {}
        self._news = asyncio.Condition()
        self.leads: set[str] = set()

    async def listen(self) -> None:
        """Read what it tells until it ends."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            event: dict[str, Any] = json.loads(line)
            async with self._news:
                self._told[event["event"]] = event["at"]
                if event["event"] == "leads":
                    self.leads.add(event["name"])
                self._news.notify_all()

    async def when(self, event: str, bound_s: float = _BOUND_S) -> float:
        """Wait until it told of an event, and return when that was by the machine's clock."""
        async with asyncio.timeout(bound_s), self._news:
            await self._news.wait_for(lambda: event in self._told)
        return self._told[event]

    def kill(self) -> None:
        """Kill it on the spot."""
        self._process.kill()

    def ask_to_leave(self) -> None:
        """Let its members leave the cluster."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"leave\n")

    async def gone(self) -> None:
        """Wait for its end; one that does not end is killed."""
        try:
            async with asyncio.timeout(_BOUND_S / 6):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()


@asynccontextmanager
async def child(orders: Orders) -> AsyncGenerator[Child]:
    """Run a process of members for the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.locks.member", orders.text()),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    one = Child(process)
    async with Background() as background:
        background.start(one.listen(), name="child")
        try:
            yield one
        finally:
            if process.returncode is None:
                one.kill()
            await one.gone()
