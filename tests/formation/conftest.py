"""Two engine nodes on a real formation, and all that is known of both; one for a module's tests."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from cluster.conftest import TTL_S, Laboratory, _enter, _furnish, _leave

from engine_pg.clock import boottime
from engine_pg.db.database import connect
from engine_pg.db.wire import bounded
from engine_pg.demo.rest import Heard
from engine_pg.demo.stack import Options, Stack
from engine_pg.demo.state import StateFolder, free_ports
from engine_pg.errors import EngineError, Invalid, NotFound
from engine_pg.formation import Formation, Plan
from engine_pg.formation.programs import programs
from engine_pg.settings import PREFIX

NODES = 2
PLAN = Plan(nodes=2)
STACK = "on-formation"
MEMORY = Path("/dev/shm")
ROOM_BYTES = 4 * 1024**3
WRITE = "select pg_logical_emit_message(true, 'test', 'it takes writes')"
_PACE_S = 0.02
_BOUND_S = 3.0


class OnFormation(Laboratory):
    """A running stack whose database is a formation."""

    @property
    def formation(self) -> Formation:
        assert self.stack.formation is not None
        return self.stack.formation

    def mend(self) -> None:
        """Start what does not run, and wait until all is where it belongs."""
        self.formation.up(PLAN, self.said.append)


class Figures:
    """What a writer and a reader met with while a formation was hurt."""

    def __init__(self) -> None:
        self.gap_s = 0.0  # the longest time between two acknowledged writes
        self.reads = 0
        self.failed: list[Heard] = []

    def hear(self, heard: Heard) -> None:
        self.reads += 1
        if heard.status == 0 or heard.status >= 500:
            self.failed.append(heard)


@pytest.fixture(scope="session")
def memory_tmp(roomy_tmp: Path) -> Iterator[Path]:
    """Yield a folder in memory where there is some: what is measured is not the disk."""
    if not MEMORY.is_dir() or shutil.disk_usage(MEMORY).free < ROOM_BYTES:
        yield roomy_tmp
        return
    folder = Path(tempfile.mkdtemp(prefix="engine-pg-", dir=MEMORY))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def formation(memory_tmp: Path) -> Iterator[Formation]:
    """Yield a formation, where the packages are.

    Continuous integration has them: there, a skipped test is a failed one.
    """
    try:
        programs()
    except Invalid as missing:
        pytest.skip(str(missing))
    made = Formation(StateFolder(memory_tmp / STACK).formation)
    try:
        made.up(PLAN, lambda _: None)
        yield made
    finally:
        with suppress(NotFound):
            made.down(lambda _: None)


@pytest.fixture(scope="module")
def on_formation(formation: Formation, memory_tmp: Path) -> Iterator[OnFormation]:
    """Yield two nodes and two hosts on it; they adopt it, and stop it when they end."""
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner() as runner:
        for name in [name for name in os.environ if name.startswith(PREFIX)]:
            patch.delenv(name)
        patch.setenv("ENGINE_LEASE_TTL_S", str(TTL_S))
        said: list[str] = []
        options = Options(
            nodes=NODES,
            hosts=2,
            base_port=free_ports(NODES),
            settings={"host_inflight_bound_s": 2},
            formation=PLAN,
        )
        stack = Stack(StateFolder(memory_tmp / STACK), options, said.append)
        assert stack.formation is not None
        assert stack.formation.url() == formation.url()
        living = runner.run(_enter(stack))
        laboratory = OnFormation(stack, runner, said)
        try:
            laboratory.run(_furnish(stack))
            yield laboratory
        finally:
            laboratory.run(_leave(living))


@pytest.fixture
def whole(on_formation: OnFormation) -> Iterator[OnFormation]:
    """Yield the formation, settled; it is mended after the test."""
    on_formation.mend()
    yield on_formation
    on_formation.mend()


@asynccontextmanager
async def observed(laboratory: OnFormation) -> AsyncGenerator[Figures]:
    """Write and read beside a block, all the time, and keep how that went."""
    figures, enough = Figures(), asyncio.Event()
    async with asyncio.TaskGroup() as group, laboratory.target.client(figures.hear) as client:
        await client.get("/vms")

        async def read() -> None:
            turn = 0
            while not enough.is_set():
                await client.get("/vms", first=(turn := turn + 1))
                await asyncio.sleep(_PACE_S)

        reading = group.create_task(read())
        group.create_task(_write(laboratory.target.database_url, figures, enough))
        yield figures
        enough.set()
        await reading


async def _write(url: str, figures: Figures, enough: asyncio.Event) -> None:
    last = boottime()
    while not enough.is_set():
        try:
            connection = await connect(url, name="test writer")
            try:
                while not enough.is_set():
                    await bounded(connection, connection.execute(WRITE), _BOUND_S)
                    figures.gap_s = max(figures.gap_s, boottime() - last)
                    last = boottime()
                    await asyncio.sleep(_PACE_S)
            finally:
                await connection.close()
        except (EngineError, psycopg.Error):
            await asyncio.sleep(_PACE_S)
