"""Processes of nodes that run commands, driven line by line, killed and frozen by tests."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

WORKER = Path(__file__).with_name("command_worker.py")
TESTS = Path(__file__).resolve().parent.parent
BOUND_S = 60.0


class Hand:
    """One such process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def hears(self, word: str) -> str:
        """Wait until it says a line that begins with a word."""
        async with asyncio.timeout(BOUND_S):
            while True:
                line = (await self.process.stdout.readline()).decode()
                assert line, f"it died before it said {word}"
                if line.split()[0] == word:
                    return line.strip()

    async def told(self, *words: str) -> None:
        self.process.stdin.write((" ".join(words) + "\n").encode())
        await self.hears(words[0])

    def signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def ends(self) -> int:
        async with asyncio.timeout(BOUND_S):
            return await self.process.wait()

    async def end(self) -> None:
        self.signal(signal.SIGKILL)
        await self.process.communicate()


async def hired(url: str, node: str, *words: str) -> Hand:
    """Start a process; it is a member when this returns."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(WORKER), url, node, *words),
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    hand = Hand(process)
    try:
        await hand.hears("ready")
    except BaseException:
        await hand.end()
        raise
    return hand


@asynccontextmanager
async def hand(url: str, node: str, *words: str) -> AsyncGenerator[Hand]:
    """Have a process for a while."""
    one = await hired(url, node, *words)
    try:
        yield one
    finally:
        await one.end()
