"""How the tests are spread over lanes: what stays together, and that quiet ones run alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from lanes import HEAVY, TOGETHER, part_of, scope_of

TESTS = Path(__file__).resolve().parent.parent
HOOKS = """
from lanes import pytest_collection_modifyitems, pytest_configure, pytest_xdist_make_scheduler
"""
NOISY = """
import time
from pathlib import Path
import pytest

@pytest.mark.parametrize("number", range(TIMES))
def test_it_makes_noise(number):
    with Path(__file__).with_suffix(".noise").open("w"):
        time.sleep(0.05)

@pytest.mark.quiet
def test_the_others_have_ended():
    assert not list(Path(__file__).parent.glob("*.noise"))

def test_silence_comes():
    Path(__file__).with_suffix(".noise").unlink()
"""
CALM = """
from pathlib import Path
import pytest

@pytest.mark.quiet
@pytest.mark.parametrize("number", range(2))
def test_nobody_makes_noise(number):
    assert not list(Path(__file__).parent.glob("*.noise"))
"""


@pytest.fixture
def project(tmp_path):
    """Return what runs pytest on two noisy modules, and a calm one that is collected first."""
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
    (tmp_path / "conftest.py").write_text(HOOKS)
    (tmp_path / "test_a.py").write_text(CALM)
    for name, times in (("b", 3), ("c", 20)):
        (tmp_path / f"test_{name}.py").write_text(NOISY.replace("TIMES", str(times)))

    def ran(*words: str) -> str:
        paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
        command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", *words]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": paths, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    return ran


def test_quiet_tests_run_when_all_other_lanes_have_ended(project):
    said = project("-p", "xdist", "-n", "2", "--dist", "loadgroup")
    assert "29 passed" in said
    ran = [line for line in said.splitlines() if "PASSED" in line]
    quiet = [line for line in ran if "nobody" in line or "others" in line]
    assert ran[-4:] == quiet
    assert len({line.split()[0] for line in quiet}) == 1, "one lane runs them"


def test_without_lanes_quiet_tests_come_last(project):
    said = project()
    assert said.index("test_it_makes_noise") < said.index("test_nobody_makes_noise")


def test_a_lane_runs_a_module_as_a_whole():
    assert scope_of("tests/unit/test_x.py::test_a[x::y@z]") == "tests/unit/test_x.py"
    assert scope_of("tests/unit/test_x.py::test_a", {"tests/unit/test_x.py::test_a"}) == "quiet"


def test_modules_that_share_a_dear_fixture_go_together():
    assert scope_of("tests/sdk/test_x.py::test_a") == scope_of("tests/sdk/test_y.py::test_b")


def test_what_is_said_of_folders_and_modules_is_true():
    assert all((TESTS / place).exists() for place in HEAVY)
    assert all((TESTS.parent / folder).is_dir() for folder in TOGETHER)


def test_lanes_draw_their_ports_from_parts_that_do_not_overlap():
    parts = [part_of(range(9100, 10900), number, 3) for number in range(3)]
    ports = [port for part in parts for port in part]
    assert ports == list(range(9100, 10900))
