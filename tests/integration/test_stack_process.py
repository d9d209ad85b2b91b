import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine_pg.demo.process import Process

BOUND_S = 10.0
SLEEPER = (sys.executable, "-c", "import time; print('here', flush=True); time.sleep(600)")
STUBBORN = (
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('here', flush=True); time.sleep(600)",
)


async def until(happened) -> None:
    async with asyncio.timeout(BOUND_S):
        while not happened():  # noqa: ASYNC110 - /proc and files send no events
            await asyncio.sleep(0.01)


@pytest.fixture
def run(tmp_path):
    """Run a coroutine function with a process that is kept meanwhile, and return what was told."""

    def ran(body, command=SLEEPER) -> list[str]:
        told: list[str] = []
        log = tmp_path / "log"

        async def main() -> None:
            process = Process("it", command, told.append, lambda: None, env={}, log=log)
            process.start()
            async with asyncio.TaskGroup() as group:
                keeper = group.create_task(process.keep())
                await until(lambda: log.exists() and "here" in log.read_text())
                await body(process)
                keeper.cancel()
            assert process.pid is None

        asyncio.run(main())
        return told

    return ran


def test_what_dies_is_started_again(run):
    async def body(process):
        first = process.pid
        os.kill(first, signal.SIGKILL)
        await until(lambda: process.pid not in (None, first))
        assert process.deaths == 1

    told = run(body)
    assert len(told) == 1
    assert told[0].startswith("it died (SIGKILL); again in 0.5 s")


def test_what_is_killed_on_request_stays_dead_until_started(run):
    async def body(process):
        first = process.pid
        process.kill()
        await until(lambda: process.state == "stopped")
        process.start()
        await until(lambda: process.pid not in (None, first))

    assert run(body) == []


def test_a_frozen_process_stands_still_and_goes_on(run):
    async def body(process):
        stat = Path(f"/proc/{process.pid}/stat")
        process.freeze()
        await until(lambda: stat.read_text().split()[2] == "T")
        assert process.state == "frozen"
        process.thaw()
        await until(lambda: stat.read_text().split()[2] != "T")
        assert process.state == "running"

    run(body)


def test_a_frozen_process_can_be_stopped(run):
    async def body(process):
        process.freeze()
        await process.stop()
        assert process.state == "stopped"

    assert run(body) == []


def test_what_does_not_stop_is_killed_at_the_bound(run):
    async def body(process):
        await process.stop(bound_s=0.2)

    assert run(body, STUBBORN) == ["it did not stop within 0.2 s and was killed"]


STARTER = """
import asyncio, sys
from pathlib import Path
from engine_pg.demo.process import Process
async def main():
    log = Path(sys.argv[1])
    tell = lambda: print(process.pid, flush=True)
    process = Process("it", ["sleep", "600"], print, tell, env={"PATH": "/usr/bin:/bin"}, log=log)
    process.start()
    await process.keep()
asyncio.run(main())
"""


def test_a_process_dies_with_its_starter_however_that_dies(tmp_path):
    words = (sys.executable, "-c", STARTER, str(tmp_path / "log"))
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as starter:
        child = int(starter.stdout.readline())
        assert Path(f"/proc/{child}").exists()
        starter.kill()
    deadline = time.monotonic() + BOUND_S
    while (status := Path(f"/proc/{child}/stat")).exists():
        if status.read_text().split()[2] == "Z":
            break
        assert time.monotonic() < deadline
        time.sleep(0.01)
