"""A clock of the chaos runs jumps for its process, and no other clock of it does."""

import os
import subprocess
import sys

import pytest
from chaos.clocks import Clocks

from engine_pg.clock import boottime

ASKED = """
import sys, time
for _ in sys.stdin:
    print(time.time(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME), flush=True)
"""


def test_only_the_wall_clock_jumps(tmp_path):
    clocks = Clocks(tmp_path)
    if not clocks.may_jump:
        pytest.skip("Debian's package faketime is not installed")
    with subprocess.Popen(
        [sys.executable, "-c", ASKED],
        env=dict(os.environ) | clocks.environment("node-1"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:

        def read() -> list[float]:
            assert process.stdin
            assert process.stdout
            print("now", file=process.stdin, flush=True)
            return [float(word) for word in process.stdout.readline().split()]

        before = read()
        clocks.jump("node-1", -3600)
        wall, monotonic, boot = read()
        assert wall == pytest.approx(before[0] - 3600, abs=10)
        assert before[1] <= monotonic < before[1] + 10
        assert before[2] <= boot <= boottime()
        clocks.jump("node-1", 0)
        assert before[0] <= read()[0] < before[0] + 10
