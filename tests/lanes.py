"""How `make test` spreads the tests: lanes beside each other, and a quiet end.

A lane is a process of pytest-xdist, with a PostgreSQL and ports of its own; a module is run by one
lane. Tests marked `quiet`, and those of heavy modules, measure what the load of other tests would
spoil, or load the whole machine: one lane runs them when all others have ended.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import pytest

from engine_pg.db.embedded import site
from engine_pg.demo import state

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from xdist.scheduler.protocol import Scheduling

HEAVY = (  # folders and modules all of whose tests are quiet
    "cluster/",
    "conformance/test_chaos_network.py",
    "formation/",
    "integration/test_benchmark_feed.py",
    "integration/test_cluster_failover.py",
    "integration/test_command_boundaries.py",
    "integration/test_command_deaths.py",
    "integration/test_feed_stress.py",
    "integration/test_node_through_failover.py",
    "integration/test_queue_outages.py",
    "integration/test_reads_linearize.py",
)
TOGETHER = ("tests/sdk", "tests/conformance")  # folders with dear fixtures for all their modules
QUIET = "quiet"
ENDING_S = 40  # for the fixtures of a lane, once it was told to end


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log) -> Scheduling:
    from xdist import workermanage
    from xdist.scheduler.loadscope import LoadScopeScheduling

    class Modules(LoadScopeScheduling):
        @cached_property
        def quiet(self) -> frozenset[str]:
            run = next(iter(self.nodes)).workerinput["testrunuid"]
            return frozenset(note_of(run, "quiet").read_text().splitlines())

        def _split_scope(self, nodeid: str) -> str:
            return scope_of(nodeid, self.quiet)

    config.option.loadscopereorder = False  # ours is better than that by number of tests
    workermanage.NodeManager.EXIT_TIMEOUT = ENDING_S  # else an interrupt leaves servers behind
    return Modules(config, log)


def note_of(run: str, what: str) -> Path:
    """Return the path of a file that the processes of one run share."""
    return Path(tempfile.gettempdir(), f"engine-pg-lanes-{os.getuid()}-{run}.{what}")


def scope_of(nodeid: str, quiet: Collection[str] = ()) -> str:
    """Return what is run by one lane together with a test."""
    if nodeid in quiet:
        return QUIET
    module = nodeid.partition("::")[0]
    return next((folder for folder in TOGETHER if module.startswith(f"{folder}/")), module)


def is_quiet(item: pytest.Item) -> bool:
    return item.get_closest_marker(QUIET) is not None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.removeprefix("tests/").startswith(HEAVY):
            item.add_marker(QUIET)
    items.sort(key=is_quiet)
    if (lane := config.pluginmanager.get_plugin("lane")) is not None:
        lane.tell_quiet([item.nodeid for item in items if is_quiet(item)])


class Lane:
    """One process of several: it has its share of the ports, and knows when the others ended."""

    def __init__(self, run: str, number: int, count: int) -> None:
        self._running: TextIO = note_of(run, "running").open("a")  # shared by all that run
        self._run, self._number = run, number
        self._alone = False
        fcntl.flock(self._running, fcntl.LOCK_SH)
        self._take_ports(number, count)
        for name in ("COLUMNS", "LINES"):  # of a terminal that xdist means lanes to have
            os.environ.pop(name, None)

    def tell_quiet(self, titles: list[str]) -> None:
        """Tell whoever schedules, who sees titles and no marks; all lanes tell him the same."""
        draft = note_of(self._run, f"draft-{self._number}")
        draft.write_text("\n".join(titles))
        draft.replace(note_of(self._run, "quiet"))

    @staticmethod
    def _take_ports(number: int, count: int) -> None:
        """Draw ports from a share: between choice and use, nobody else may take one."""
        site._PORTS = site._PORTS[number::count]
        state._HOST_PORTS = part_of(state._HOST_PORTS, number, count)
        state._OTHER_PORTS = part_of(state._OTHER_PORTS, number, count)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        if is_quiet(item) and not self._alone:
            fcntl.flock(self._running, fcntl.LOCK_EX)
            self._alone = True
        return (yield)

    def pytest_unconfigure(self) -> None:
        for what in ("running", "quiet"):
            note_of(self._run, what).unlink(missing_ok=True)
        self._running.close()


def part_of(ports: range, number: int, count: int) -> range:
    """Return one of several equal parts of a range."""
    size = len(ports) // count
    return ports[number * size : (number + 1) * size]


def pytest_configure(config: pytest.Config) -> None:
    words = f"{QUIET}: run when nothing else does: it measures time, or loads the whole machine"
    config.addinivalue_line("markers", words)
    if worker := getattr(config, "workerinput", None):
        number = int(worker["workerid"].removeprefix("gw")) % worker["workercount"]
        config.pluginmanager.register(
            Lane(worker["testrunuid"], number, worker["workercount"]), "lane"
        )
