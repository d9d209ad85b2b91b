"""Worker processes as the benchmark sees them: started, listened to, killed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from benchmarks.jobs.contender import Contender
from engine_pg.supervisor import Background

_BOUND_S: Final = 60.0


class Worker:
    """One worker process; `began` has when it began each command, by its number."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._news = asyncio.Condition()
        self.began: dict[int, float] = {}

    async def listen(self) -> None:
        """Read what it writes until it ends."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            number, at = line.split()
            async with self._news:
                self.began.setdefault(int(number), float(at))
                self._news.notify_all()

    async def when(self, number: int, bound_s: float = _BOUND_S) -> float:
        """Wait until it began a command, and return when that was."""
        async with asyncio.timeout(bound_s), self._news:
            await self._news.wait_for(lambda: number in self.began)
        return self.began[number]

    async def kill(self) -> None:
        """Kill it on the spot."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def worker(one: Contender, url: str, name: str) -> AsyncGenerator[Worker]:
    """Run a worker process for the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.jobs.worker", one.name, url, name),
        stdout=asyncio.subprocess.PIPE,
    )
    started = Worker(process)
    async with Background() as background:
        background.start(started.listen(), name="worker")
        try:
            yield started
        finally:
            await started.kill()


@asynccontextmanager
async def workers(one: Contender, url: str, many: int) -> AsyncGenerator[list[Worker]]:
    """Run so many worker processes for the block."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(worker(one, url, f"w{n}")) for n in range(many)]
