"""A stack of real processes with a short lease, hurt on purpose; one for the tests of a module."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from engine_pg.clock import boottime
from engine_pg.db.embedded import EmbeddedPostgres
from engine_pg.demo.furnish import furnish
from engine_pg.demo.stack import Options, Stack
from engine_pg.demo.state import StateFolder, free_ports
from engine_pg.demo.target import Target
from engine_pg.settings import PREFIX

T = TypeVar("T")

NODES = 3
TTL_S = 2.0
RESTORES = "ENGINE_TEST_RESTORES"  # set: the restore of a formation is tested, for a minute
collect_ignore = [] if os.environ.get(RESTORES) else ["test_formation_restored.py"]
BOUND_S = 60.0


class Laboratory:
    """A running stack, its event loop, and all that is known of it."""

    def __init__(self, stack: Stack, runner: asyncio.Runner, said: list[str]) -> None:
        self.stack = stack
        self.target = Target(stack.state)
        self.said = said
        self._runner = runner

    def run(self, coro: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop that the stack lives in."""
        return self._runner.run(coro)


@pytest.fixture(scope="module")
def laboratory(request: pytest.FixtureRequest, roomy_tmp: Path) -> Iterator[Laboratory]:
    """Yield a stack of three nodes and three hosts; its parameter says how the hosts fence."""
    binaries = os.environ.get("ENGINE_TEST_PG_BIN")
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner() as runner:
        for name in [name for name in os.environ if name.startswith(PREFIX)]:
            patch.delenv(name)
        patch.setenv("ENGINE_LEASE_TTL_S", str(TTL_S))
        state = StateFolder(roomy_tmp / f"stack-{request.param}")
        said: list[str] = []
        options = Options(
            nodes=NODES,
            fencing=request.param,
            base_port=free_ports(NODES),
            settings={"host_inflight_bound_s": 2},
        )
        stack = Stack(state, options, said.append)
        if binaries:
            stack.embedded = EmbeddedPostgres(state.postgres, binaries=Path(binaries))
        living = runner.run(_enter(stack))
        laboratory = Laboratory(stack, runner, said)
        try:
            laboratory.run(_furnish(stack))
            yield laboratory
        finally:
            laboratory.run(_leave(living))


async def _enter(stack: Stack) -> tuple[asyncio.Task[None], asyncio.Event]:
    """Start the stack in a task of its own, which is the one that must leave it."""
    ready, enough = asyncio.Event(), asyncio.Event()

    async def live() -> None:
        try:
            async with stack:
                ready.set()
                await enough.wait()
        finally:
            ready.set()

    living = asyncio.get_running_loop().create_task(live())
    await ready.wait()
    if living.done():
        await living
    return living, enough


async def _leave(living: tuple[asyncio.Task[None], asyncio.Event]) -> None:
    life, enough = living
    enough.set()
    await life


async def _furnish(stack: Stack) -> None:
    async with stack.client() as client:
        await furnish(client, host_ports=stack.host_ports, vms=0, tell=lambda _: None)


async def until(happened, bound_s: float = BOUND_S) -> None:
    """Poll a coroutine function until it returns something true."""
    deadline = boottime() + bound_s
    while not await happened():
        assert boottime() < deadline, "it did not happen"
        await asyncio.sleep(0.02)
