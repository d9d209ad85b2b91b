"""Many writers, readers on many nodes, and everything that befalls them, for a while.

ENGINE_FEED_STRESS_S=60 pytest tests/integration/test_feed_stress.py      for longer than usual
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import psycopg
import pytest
from integration.feed_worker import BOUND_S, LONG_S, TABLES
from integration.nodes import run

from engine_pg.clock import boottime
from engine_pg.cluster.feed import FeedRetention, Keep
from engine_pg.db.database import Database
from engine_pg.db.embedded import EmbeddedPostgres
from engine_pg.db.migrate import upgrade
from engine_pg.errors import EngineError

SECONDS = float(os.environ.get("ENGINE_FEED_STRESS_S", "10"))
WRITERS, READERS, REPLICAS = 4, 3, 2
WORKER = Path(__file__).with_name("feed_worker.py")
KILLED = """
select pg_terminate_backend(pid) from pg_stat_activity
 where application_name like 'engine_pg%' and datname = current_database()
"""
LISTENERS = KILLED + " and application_name = 'engine_pg doorbell'"
NEW_EPOCH = "update cluster_epoch_marker set marker = gen_random_uuid()"
SMALL = Keep(age_s=0.5, most_rows=300)


@pytest.fixture
def server(roomy_folder):
    """Yield a server of this test's own: it is restarted."""
    binaries = os.environ.get("ENGINE_TEST_PG_BIN")
    server = EmbeddedPostgres(
        roomy_folder,
        binaries=Path(binaries) if binaries else None,
        settings={"fsync": "off", "max_connections": "60"},
    )
    server.start()
    try:
        upgrade(server.url("engine"))
        yield server
    finally:
        server.stop("immediate")


class Workers:
    """Processes that write and read until told to end."""

    def __init__(self, url: str, stack: ExitStack) -> None:
        self._url = url
        self._stack = stack

    def start(self, what: str, seed: int) -> subprocess.Popen[str]:
        words = [sys.executable, str(WORKER), what, self._url, str(seed)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = subprocess.Popen(words, text=True, **pipes)
        self._stack.callback(process.kill)
        return process


def troubles(server, url):
    """Yield what happens, one thing after the other."""

    def execute(query):
        with suppress(psycopg.Error), psycopg.connect(url, autocommit=True) as psql:
            psql.execute(query)

    def restart():
        server.stop("fast")
        server.start()

    yield lambda: execute(LISTENERS)
    yield lambda: execute(KILLED)
    yield lambda: execute(LISTENERS)
    yield lambda: execute(NEW_EPOCH)
    yield restart


def hurt(server, url, deadline):
    pause_s = (deadline - boottime()) / 6
    for trouble in troubles(server, url):
        time.sleep(pause_s)
        trouble()
    time.sleep(max(0.0, deadline - boottime()))


async def trim(url, stop):
    async with Database(url, pool_max=1) as db:
        retention = FeedRetention(db, lambda: SMALL)
        while not stop.is_set():
            with suppress(EngineError):
                await retention.trim()
            await asyncio.sleep(0.2)


@pytest.mark.timeout(SECONDS * 2 + 120)
def test_nothing_is_lost_nothing_comes_twice_and_every_copy_is_exact(server):
    url = server.url("engine")
    with psycopg.connect(url, autocommit=True) as psql:
        psql.execute(TABLES)

    async def story():
        with ExitStack() as stack:
            workers = Workers(url, stack)
            readers = [workers.start("read", seed) for seed in range(READERS)]
            replicas = [workers.start("replicate", seed) for seed in range(REPLICAS)]
            writers = [workers.start("write", seed) for seed in range(WRITERS)]
            holder = workers.start("hold", WRITERS)
            for each in (*readers, *replicas, *writers, holder):
                assert await asyncio.to_thread(each.stdout.readline) == "ready\n"
            stop = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                group.create_task(trim(url, stop))
                await asyncio.to_thread(hurt, server, url, boottime() + SECONDS)
                stop.set()
            for each in writers:
                assert await last_word(each) == ""
            judge(
                json.loads(await last_word(holder)),
                [json.loads(await last_word(each)) for each in readers],
                [json.loads(await last_word(each)) for each in replicas],
            )

    run(story(), SECONDS * 2 + 100)


async def last_word(process) -> str:
    """Let a process end, and return what it says of what it did."""
    said, _ = await asyncio.to_thread(process.communicate, None, BOUND_S)
    assert process.returncode == 0
    return said


def judge(held_s, readers, replicas) -> None:
    told = {"held_s": held_s, "readers": readers, "replicas": replicas}
    sys.stdout.write(f"{json.dumps(told, indent=1)}\n")
    assert max(held_s) >= LONG_S
    for verdict in (*readers, *replicas):
        assert verdict["wrong"] == []
        assert verdict["changes"] > (10 if verdict.get("sleeps") else 100)
        assert verdict["copies"] >= 2
    for verdict in readers:
        if not verdict["sleeps"]:
            assert verdict["delay_s"] < LONG_S / 8, "who stays open delays nobody else"
        elif SECONDS >= 30:  # in less time it may be lucky
            assert verdict["passed"], "retention goes past who sleeps"
