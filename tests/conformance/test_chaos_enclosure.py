"""An enclosed run leaves nothing behind, however it ends, and shows nobody what it made."""

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from replication import title_of, until

RUN = """
import os, subprocess, sys, time
from lab.enclosure import enclosed

def run():
    subprocess.run(["ip", "netns", "add", "engine-pg-trial"], check=True)
    subprocess.Popen(["sleep", sys.argv[1]], start_new_session=True)
    print("ready", flush=True)
    if len(sys.argv) > 2:
        return int(sys.argv[2])
    time.sleep(60)

sys.exit(enclosed(run))
"""
MARK = "61.0625"  # the seconds of a sleep tell it from others


def sleeping() -> bool:
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return any(title_of(pid).startswith(f"sleep\0{MARK}") for pid in pids)


@contextmanager
def started(*words: str) -> Generator[subprocess.Popen[str]]:
    paths = [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    with subprocess.Popen(
        [sys.executable, "-c", RUN, MARK, *words],
        env=dict(os.environ) | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout
        assert run.stdout.readline() == "ready\n"
        yield run
    until(lambda: not sleeping(), 10)


def test_a_killed_run_takes_everything_along():
    with started() as run:
        assert sleeping()
        assert not Path("/run/netns/engine-pg-trial").exists()
        run.kill()


def test_a_run_is_told_to_stop():
    with started() as run:
        run.send_signal(signal.SIGTERM)
        assert run.wait(10) == 128 + signal.SIGTERM


def test_what_a_run_returns_is_returned():
    with started("7") as run:
        assert run.wait(10) == 7
