"""Processes of nodes that run commands, driven line by line, killed and frozen by tests.

They are forked from one that has imported everything already: that takes most of a start.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from functools import cache
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from multiprocessing.forkserver import ensure_running
from pathlib import Path

import pytest
from integration import command_worker

TESTS = Path(__file__).resolve().parent.parent
BOUND_S = 60.0
FORKING = get_context("forkserver")


class Hand:
    """One such process."""

    def __init__(
        self,
        process: ForkServerProcess,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.process = process
        self._reader = reader
        self._writer = writer

    async def hears(self, word: str) -> str:
        """Wait until it says a line that begins with a word."""
        async with asyncio.timeout(BOUND_S):
            while True:
                line = (await self._reader.readline()).decode()
                assert line, f"it died before it said {word}"
                if line.split()[0] == word:
                    return line.strip()

    async def told(self, *words: str) -> None:
        self._writer.write((" ".join(words) + "\n").encode())
        await self.hears(words[0])

    def signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    async def ends(self) -> int:
        """Return how it ended, once it has."""
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self.process.sentinel, over.set)
        try:
            while self.process.exitcode is None:
                await over.wait()
        finally:
            loop.remove_reader(self.process.sentinel)
        return self.process.exitcode

    async def end(self) -> None:
        self.process.kill()
        async with asyncio.timeout(BOUND_S):
            await self.ends()
        self._writer.transport.abort()


@cache
def _preloaded() -> None:
    """Start the process that others are forked from, where it finds what it is to import."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(TESTS))
        FORKING.set_forkserver_preload([command_worker.__name__])
        ensure_running()


async def hired(url: str, node: str, *words: str) -> Hand:
    """Start a process; it is a member when this returns."""
    await asyncio.to_thread(_preloaded)
    here, there = socket.socketpair()
    process = FORKING.Process(target=command_worker.employed, args=(there, [url, node, *words]))
    await asyncio.to_thread(process.start)
    there.close()
    hand = Hand(process, *await asyncio.open_connection(sock=here))
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
