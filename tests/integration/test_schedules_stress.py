"""One-second ticks through killed nodes, frozen ones and restarts of the database, for a while.

ENGINE_SCHEDULES_STRESS_S=60 pytest tests/integration/test_schedules_stress.py     for a minute
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path

import pytest
from integration.nodes import eventually, run
from integration.scheduling import COMMAND, EVERY, TILED, WORK, firing

from engine_pg.clock import boottime
from engine_pg.db.embedded import EmbeddedPostgres
from engine_pg.db.migrate import upgrade
from engine_pg.errors import EngineError

SECONDS = float(os.environ.get("ENGINE_SCHEDULES_STRESS_S", "7"))
NODES = 3
WORKER = Path(__file__).with_name("schedule_worker.py")
ROUND_S = 4.0
POLICIES = {
    "each": {"misfire": "fire_all", "grace_s": 0, "overlap": "allow"},
    "in-time": {"misfire": "fire_all", "grace_s": 60, "overlap": "allow"},
    "once": {"misfire": "fire_once", "grace_s": 1, "overlap": "allow"},
    "skips": {"misfire": "skip", "grace_s": 1, "overlap": "allow"},
    "jittered": {"misfire": "fire_all", "grace_s": 60, "overlap": "allow", "jitter_s": 0.9},
    "cron": {"misfire": "fire_all", "grace_s": 60, "overlap": "allow"},
    "command": {"misfire": "fire_all", "grace_s": 60, "overlap": "allow"},
}


@pytest.fixture
def server(roomy_folder):
    """Yield a server of this test's own: it is restarted at once, as after a crash."""
    binaries = os.environ.get("ENGINE_TEST_PG_BIN")
    server = EmbeddedPostgres(
        roomy_folder,
        binaries=Path(binaries) if binaries else None,
        settings={"fsync": "off"},
    )
    server.start()
    try:
        upgrade(server.url("engine"))
        yield server
    finally:
        server.stop("immediate")


class Nodes:
    """Processes that fire, some of which are killed or frozen now and then."""

    def __init__(self, url: str, stack: ExitStack) -> None:
        self._url = url
        self._stack = stack
        self._names = (f"node-{number}" for number in itertools.count(1))
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        words = [sys.executable, str(WORKER), self._url, next(self._names)]
        process = subprocess.Popen(words)
        self._stack.enter_context(process)
        self._stack.callback(process.kill)
        self.running.append(process)

    def kill(self) -> None:
        process = self.running.pop(0)
        process.kill()
        self.start()

    def freeze(self, seconds: float) -> None:
        process = self.running[-1]
        process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        process.send_signal(signal.SIGCONT)


def hurt(server: EmbeddedPostgres, nodes: Nodes, deadline: float) -> None:
    """Kill a node, restart the database, kill all nodes, freeze one, in each round of a while."""
    draw = random.Random(1)
    while boottime() < deadline:
        began = boottime()
        time.sleep(draw.uniform(0.2, 1.2))
        nodes.kill()
        time.sleep(draw.uniform(0.2, 0.8))
        server.stop("immediate")
        server.start()
        for _ in range(NODES):
            nodes.kill()
        nodes.freeze(1.2)
        time.sleep(max(0.0, began + ROUND_S - boottime()))


@pytest.mark.timeout(SECONDS * 3 + 120)
def test_every_tick_fires_once_or_as_its_policy_says(server):
    url = server.url("engine")

    async def story():
        with ExitStack() as stack:
            nodes = Nodes(url, stack)
            for _ in range(NODES):
                nodes.start()
            began = {}
            async with firing(url) as f:
                for name, policy in POLICIES.items():
                    when = {"cron": "* * * * * *"} if name == "cron" else {"every_s": 1}
                    what = COMMAND if name == "command" else {"work": WORK}
                    began[name] = (await f.set(name, **{**what, **policy, **when})).due_at
                await eventually(lambda: f.runs("each"), 30)
            await asyncio.to_thread(hurt, server, nodes, boottime() + SECONDS)
            async with firing(url) as f:
                end = (await f.rows("select clock_timestamp() as at"))[0]["at"]

                async def caught_up():
                    with suppress(EngineError):
                        return all([(await f.get(name)).due_at > end for name in POLICIES])

                await eventually(caught_up, 30)
                for name in POLICIES:
                    await f.pause(name, paused=True)
                await judge(f, began, end)

    run(story(), SECONDS * 3 + 100)


async def judge(f, began, end) -> None:
    submitted = await f.commands()  # each with its one job
    assert submitted == sorted(str(each.run_id) for each in await f.runs("command"))
    for name, policy in POLICIES.items():
        [tiled] = await f.rows(TILED, name=name, every_s=1)
        assert tiled["whole"], name  # no tick is missing, and none comes twice
        assert tiled["first"] == began[name]
        assert tiled["last"] >= end - timedelta(seconds=2)
        assert tiled["ticks"] >= SECONDS
        found = await f.runs(name)
        began_runs = [each for each in found if each.state == "queued"]
        if policy["misfire"] == "fire_all":
            assert all(each.ticks == 1 for each in found)
            assert began_runs == found
        if policy["misfire"] == "skip":
            assert all(each.cause == "tick" and each.ticks == 1 for each in began_runs)
        assert all(each.fired_at >= each.due_at for each in found)
        row = await f.get(name)
        assert row.fired == len(began_runs)
        assert row.skipped == sum(each.ticks for each in found if each.state == "skipped")
    assert len({each.fired_by for each in await f.runs("each")}) >= 2


def test_every_tick_fires_once_through_a_failover_that_leaves_the_old_primary_running(replicated):
    """Who fired before goes on at the old primary, where no commit is acknowledged any more."""

    async def story():
        pair = replicated.pair
        old = pair.primary
        async with firing(replicated.url, "stays", listening=True) as stays:
            began = (await stays.set("s", **EVERY | {"grace_s": 0})).due_at
            loop = asyncio.ensure_future(stays.schedules.run())
            try:
                await eventually(lambda: stays.runs("s"), 10)
                await asyncio.to_thread(pair.promote)
                new = replicated.url_of(pair.primary.link)
                async with firing(new, "comes") as comes:
                    await eventually(lambda: fires_thrice(comes), 15)
                    [tiled] = await comes.rows(TILED, name="s", every_s=1)
                    assert tiled["whole"]
                    assert tiled["ticks"] == tiled["rows"] >= 4
                    assert tiled["first"] == began
                    assert {each.fired_by for each in await comes.runs("s")} == {"stays", "comes"}
            finally:
                await asyncio.to_thread(old.link.cut)
                loop.cancel()
                await asyncio.wait([loop])

    async def fires_thrice(comes):
        await comes.settle()
        return sum(each.fired_by == "comes" for each in await comes.runs("s")) >= 3

    run(story(), 60)
