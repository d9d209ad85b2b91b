"""Monitor, servers, engine nodes and clients on machines of their own, and all that befalls these.

One run of `python -m lab` for all tests: it judges by itself, as the long one by hand does, and
what it judges by is tried in `tests/unit/test_lab_judge.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from engine_pg.errors import Invalid
from engine_pg.formation.programs import programs
from lab.enclosure import refusal
from lab.faults import KINDS, UNSEATING

LONG = UNSEATING[:4]  # until another node takes over without being asked
GAP_S = 20.0  # of a loaded machine; the benchmark measures
BOUND_S = 800

pytestmark = pytest.mark.timeout(900)  # a formation comes up before the first one


def why_not() -> str:
    try:
        programs()
    except Invalid as missing:
        return str(missing)
    return refusal() if os.geteuid() == 0 else "only root may make namespaces"


@pytest.fixture(scope="module")
def failovers(tmp_path_factory):
    """Return what was found of one fault of each kind, by kind."""
    if why := why_not():
        pytest.skip(why)
    results = tmp_path_factory.mktemp("lab") / "failovers.jsonl"
    words = ["--count", str(len(KINDS)), "--kinds", *KINDS, "--results", str(results)]
    run = subprocess.run(
        [sys.executable, "-m", "lab", *words],
        check=False,
        timeout=BOUND_S,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    found = [json.loads(line) for line in results.read_text().splitlines()]
    assert len(found) == len(KINDS), run.stdout
    return {each["kind"]: each for each in found}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_acknowledged_is_lost_and_no_vm_runs_twice(kind, failovers):
    found = failovers[kind]
    assert found["violations"] == []
    assert (found["new"] != found["old"]) == (kind in UNSEATING)
    assert found["lost"] == 0
    assert found["commands"] >= 4
    assert found["vms_started"] >= 2


@pytest.mark.parametrize("kind", KINDS)
def test_no_node_fails_a_read_and_writes_go_on(kind, failovers):
    found = failovers[kind]
    assert found["reads_failed"] == 0
    assert found["reads"] > (50 if kind in LONG else 30)
    assert found["write_gap_s"] < GAP_S
    assert found["read_gap_s"] < GAP_S


def test_on_the_old_side_of_a_cut_writes_are_refused_and_reads_tell_their_age(failovers):
    found = failovers["partition"]
    assert found["refused_apart"] >= 3
    assert found["aged_apart"] >= 3
    assert found["acknowledged_apart"] == 0
