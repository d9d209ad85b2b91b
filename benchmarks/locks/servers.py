"""Servers of the peers: started by the benchmark in a folder of its own, never a system service."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from benchmarks.ground import Missing
from engine_pg.clock import boottime

_BOUND_S: Final = 10.0
_POLL_S: Final = 0.05


@asynccontextmanager
async def served(
    folder: Path, *command: str, ready: Callable[[], Awaitable[object]]
) -> AsyncGenerator[int]:
    """Run a server as long as the block, yield its process id once `ready` does not fail."""
    folder.mkdir(mode=0o700)  # noqa: ASYNC240 - nobody is measured yet
    log = folder / "log"
    with log.open("wb") as stream:
        server = await asyncio.create_subprocess_exec(
            *command, cwd=folder, stdin=asyncio.subprocess.DEVNULL, stdout=stream, stderr=stream
        )
    try:
        await _until(ready, server, log)
        yield server.pid
    finally:
        if server.returncode is None:
            server.kill()
        await server.wait()
        shutil.rmtree(folder, ignore_errors=True)


async def _until(
    ready: Callable[[], Awaitable[object]], server: asyncio.subprocess.Process, log: Path
) -> None:
    deadline = boottime() + _BOUND_S
    while True:
        with suppress(Exception):  # whatever its client raises: it does not answer yet
            async with asyncio.timeout(1.0):
                await ready()
            return
        if server.returncode is not None or boottime() > deadline:
            raise Missing(f"the server does not start: {_last_words(log)}")
        await asyncio.sleep(_POLL_S)


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return " / ".join(lines[-3:]) or "it says nothing"
