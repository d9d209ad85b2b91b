"""`engine-pg up` as people call it: real processes from nothing to running VMs and back."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine_pg.db.embedded import EmbeddedPostgres
from engine_pg.settings import PREFIX

BOUND_S = 60.0


@pytest.fixture
def state(roomy_folder):
    yield roomy_folder
    EmbeddedPostgres(roomy_folder / "postgres").stop("immediate")


def command(state: Path, *more: str) -> list[str]:
    size = ("--nodes", "2", "--hosts", "1", "--vms", "3")
    words = ("-m", "engine_pg", "up", "--no-view", "--state-dir", str(state), *size, *more)
    return [sys.executable, *words]


def environment() -> dict[str, str]:
    return {name: text for name, text in os.environ.items() if not name.startswith(PREFIX)}


def processes_of(state: Path) -> list[str]:
    """Return the command lines of living processes that name the folder or came from it."""
    mine = str(state).encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
            if mine in words or mine in (process / "environ").read_bytes():
                found.append(words.replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def finish(up: subprocess.Popen[str]) -> str:
    said, _ = up.communicate(timeout=BOUND_S)
    return said


def start(state: Path, *more: str, **env: str) -> subprocess.Popen[str]:
    words = command(state, *more)
    # The folder in the environment marks the children, whose words do not name it.
    env = environment() | {"ENGINE_STATE_DIR": str(state)} | env
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(words, env=env, text=True, **streams)


def wait_until_ready(up: subprocess.Popen[str]) -> None:
    for line in up.stdout:
        if line.startswith("Ready: "):
            return
    raise AssertionError("it ended before it was ready")


def test_a_second_run_goes_on_from_the_first(state):
    first = finish(start(state, "--for", "0"))
    assert "VMs: 3, 3 of them new" in first
    assert re.search(r"VMs: 3 started in \d", first)
    second = finish(start(state, "--for", "0"))
    assert "hosts: 1, 0 of them new" in second
    assert "VMs: 3, 0 of them new" in second
    assert processes_of(state) == []


def test_while_one_runs_another_is_refused_and_a_signal_ends_all(state):
    with start(state) as up:
        wait_until_ready(up)
        stack = json.loads((state / "stack.json").read_text())
        assert {node["name"] for node in stack["nodes"] if node["pid"]} == {"node-1", "node-2"}
        assert "another `engine-pg up` runs" in finish(start(state))
        up.send_signal(signal.SIGTERM)
        assert finish(up).endswith("Stopped; nothing is left running.\n")
        assert up.returncode == 0
    assert processes_of(state) == []
    assert not (state / "stack.json").exists()


def test_a_killed_run_leaves_postgres_alone_and_the_next_adopts_it(state):
    with start(state) as up:
        wait_until_ready(up)
        database = EmbeddedPostgres(state / "postgres").pid()
        up.kill()
    deadline = time.monotonic() + BOUND_S
    while left := [words for words in processes_of(state) if "postgres" not in words]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    with start(state) as up:
        wait_until_ready(up)
        assert EmbeddedPostgres(state / "postgres").pid() == database
        up.send_signal(signal.SIGINT)
        finish(up)
    assert processes_of(state) == []


def test_a_database_of_ones_own_is_used_and_its_administrator_left_alone(
    state, roomy_tmp, fresh_database_url
):
    mine = {"ENGINE_DATABASE_URL": fresh_database_url}
    assert "VMs: 3, 3 of them new" in finish(start(state, "--for", "0", **mine))
    assert not (state / "postgres").exists()
    stranger = roomy_tmp / "stranger"
    assert "your database knows admin@internal" in finish(start(stranger, **mine))
    assert "VMs: 3, 0 of them new" in finish(start(state, "--for", "0", **mine))
