"""Processes of writers as the benchmark sees them: begun at once, and asked what they did."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from benchmarks.feed.writer import Orders

_BOUND_S: Final = 60.0
_LONGEST_LINE: Final = 1 << 26


class Writing:
    """Some processes of writers."""

    def __init__(self, processes: Sequence[Process]) -> None:
        self._processes = processes

    async def line(self, process: Process, bound_s: float = _BOUND_S) -> str:
        """Return the next line that a process says."""
        assert process.stdout is not None
        async with asyncio.timeout(bound_s):
            return (await process.stdout.readline()).decode()

    async def ready(self) -> None:
        """Wait until all could begin."""
        for process in self._processes:
            if await self.line(process) != "ready\n":
                raise RuntimeError("a process of writers does not start")

    async def run(self) -> list[dict[str, Any]]:
        """Let all begin, and return what each did."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(b"\n")
        return [json.loads(await self.line(process)) for process in self._processes]


@asynccontextmanager
async def writing(*orders: Orders) -> AsyncGenerator[Writing]:
    """Start one process for each of the orders; they end with the block."""
    processes: list[Process] = []
    try:
        for each in orders:
            words = (sys.executable, "-m", "benchmarks.feed.writer", each.text())
            process = await asyncio.create_subprocess_exec(
                *words, stdin=PIPE, stdout=PIPE, limit=_LONGEST_LINE
            )
            processes.append(process)
        started = Writing(processes)
        await started.ready()
        yield started
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
            await process.wait()
