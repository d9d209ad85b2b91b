#!/usr/bin/env python
"""Breaks the rules of the protocol, one at a time, and sees that the tests notice: `make mutants`.

Each fault of tests/mutants.toml is applied to a copy of the tree, and the tests that are to catch
it must fail there: a test itself, not its collection, a fixture or a migration. Before that, the
same tests must pass on a copy without a fault.

    python scripts/mutants.py                  all of them
    python scripts/mutants.py no-gate salt     those whose name begins so
    python scripts/mutants.py --sample 3       a few, drawn anew each time
    python scripts/mutants.py --of alembic --by cluster/test_stateful_model.py
                                               those of the SQL, against one test alone
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET  # what pytest wrote a moment ago: nobody else's XML

ROOT: Final = Path(__file__).resolve().parent.parent
LIST: Final = ROOT / "tests" / "mutants.toml"
COPIED: Final = ("engine_pg", "alembic", "tests", "pyproject.toml")
_FIELDS: Final = {"breaks", "file", "before", "after", "tests"}
_BOUND_S: Final = 150.0
_BASELINE_BOUND_S: Final = 900.0
_TEST_BOUND_S: Final = 60
_ENDING_S: Final = 20.0


class Wrong(Exception):
    """The list does not fit the tree, or nothing can be concluded from a run."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault: which rule it breaks, where, how, and the tests that are to catch it."""

    name: str
    breaks: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]

    def applied(self, text: str) -> str:
        """Return a file's text with the fault in it; the place must be there exactly once."""
        count = text.count(self.before)
        if count != 1 or self.before == self.after:
            raise Wrong(f"{self.name}: {self.file} has its text {count} times, not once")
        return text.replace(self.before, self.after)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run of tests came to: the first that failed (`None`: all passed), why, how long."""

    failed: str | None
    why: str
    lasted_s: float


def read(path: Path = LIST) -> list[Mutant]:
    """Return the mutants of a list."""
    mutants: list[Mutant] = []
    for name, fields in tomllib.loads(path.read_text()).items():
        if set(fields) != _FIELDS or not fields["tests"]:
            raise Wrong(f"{name}: a mutant has {', '.join(sorted(_FIELDS))}")
        tests = tuple(fields.pop("tests"))
        mutants.append(Mutant(name, tests=tests, **fields))
    return mutants


def check(mutants: Sequence[Mutant], root: Path = ROOT) -> None:
    """Raise `Wrong` unless each mutant applies and each of its tests is there."""
    for mutant in mutants:
        mutant.applied((root / mutant.file).read_text())
        if later := _replaced(mutant, root):
            raise Wrong(f"{mutant.name}: the function is replaced in {later.name}: break it there")
        for test in mutant.tests:
            file, _, title = test.partition("::")
            path = root / "tests" / file
            if not path.is_file() or (
                title and f"def {title.split('[')[0]}(" not in path.read_text()
            ):
                raise Wrong(f"{mutant.name}: there is no test {test}")


def _replaced(mutant: Mutant, root: Path) -> Path | None:
    """Return the later migration that replaces the SQL function in which the fault is, if any."""
    place = root / mutant.file
    if not place.is_relative_to(root / "alembic"):
        return None
    before, _, _ = place.read_text().partition(mutant.before)
    since = before.rpartition(" function ")[2]
    if since.count("$$") > 1:  # the fault is behind its end
        return None
    definition = f" function {since.partition('(')[0]}("
    others = sorted((root / "alembic").glob("*/[0-9]*.*"))
    later = (each for each in others if each.name[:4] > place.name[:4])
    return next((each for each in later if definition in each.read_text()), None)


def _copy(folder: Path) -> Path:
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    return folder


def _run(tree: Path, tests: Sequence[str], bound_s: float) -> Outcome:
    """Run tests on a copy of the tree until the first failure."""
    report = tree / "report.xml"
    command = [
        *(sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"),
        *(f"--timeout={_TEST_BOUND_S}", f"--junitxml={report}"),
        *(f"tests/{test}" for test in tests),
    ]
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    started = time.monotonic()
    with (tree / "output").open("wb") as output:
        process = subprocess.Popen(
            command, cwd=tree, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            process.wait(bound_s)
        except subprocess.TimeoutExpired:
            raise Wrong(f"the tests did not end within {bound_s:g} s") from None
        finally:
            _end(process)
    return _outcome(report, (tree / "output").read_text(), time.monotonic() - started)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what still runs: gently first, so that it ends its PostgreSQL."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_ENDING_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _outcome(report: Path, output: str, lasted_s: float) -> Outcome:
    """Tell what a report says; an error beside a test proves nothing about the test."""
    if not report.is_file():
        raise Wrong(f"pytest reports nothing:\n{output[-2000:]}")
    ran = 0
    for case in ET.parse(report).getroot().iter("testcase"):
        ran += 1
        error, failure = case.find("error"), case.find("failure")
        if failure is not None:
            return Outcome(str(case.get("name")), str(failure.get("message")), lasted_s)
        if error is not None or case.find("skipped") is not None:
            raise Wrong(f"{case.get('name')} did not run:\n{output[-2000:]}")
    if not ran:
        raise Wrong(f"no test ran:\n{output[-2000:]}")
    return Outcome(None, "", lasted_s)


def _baseline(tests: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="engine-pg-mutants-") as name:
        tree = _copy(Path(name))
        found = subprocess.run(
            [sys.executable, "-c", "import engine_pg; print(engine_pg.__file__)"],
            cwd=tree,
            env=os.environ | {"PYTHONPATH": str(tree)},
            check=True,
            capture_output=True,
        )
        if Path(found.stdout.decode().strip()) != tree / "engine_pg" / "__init__.py":
            raise Wrong("the copy is not what its tests import")
        outcome = _run(tree, tests, _BASELINE_BOUND_S)
    if outcome.failed:
        raise Wrong(f"{outcome.failed} fails without any fault: {outcome.why}")
    print(f"{len(tests)} tests pass without a fault, in {outcome.lasted_s:.0f} s", flush=True)


def _try(mutant: Mutant) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="engine-pg-mutants-") as name:
        tree = _copy(Path(name))
        place = tree / mutant.file
        place.write_text(mutant.applied(place.read_text()))
        return _run(tree, mutant.tests, _BOUND_S)


def _told(mutant: Mutant, tried: Outcome | Wrong, *, why: bool) -> str:
    if isinstance(tried, Wrong):
        return f"UNCLEAR   {mutant.name}: {tried}"
    if tried.failed is None:
        return f"SURVIVED  {mutant.name}: {mutant.breaks}"
    reason = f": {' '.join(tried.why.split())[:100]}" if why else ""
    return f"caught    {mutant.name}, by {tried.failed} in {tried.lasted_s:.0f} s{reason}"


def _try_all(mutants: Sequence[Mutant], *, at_once: int, why: bool) -> int:
    """Try each mutant, tell of it in one line, and return how many were not caught."""
    bad = 0
    with ThreadPoolExecutor(at_once) as pool:
        trying = {pool.submit(_try, mutant): mutant for mutant in mutants}
        for number, done in enumerate(as_completed(trying), start=1):
            try:
                tried: Outcome | Wrong = done.result()
            except Wrong as wrong:
                tried = wrong
            bad += isinstance(tried, Wrong) or tried.failed is None
            line = _told(trying[done], tried, why=why)
            print(f"[{number:2}/{len(mutants)}] {line}", flush=True)
    return bad


def _chosen(mutants: Sequence[Mutant], options: argparse.Namespace) -> list[Mutant]:
    names: list[str] = options.names
    for name in names:
        if not any(each.name.startswith(name) for each in mutants):
            raise Wrong(f"there is no mutant {name}")
    chosen = [each for each in mutants if not names or each.name.startswith(tuple(names))]
    chosen = [each for each in chosen if each.file.startswith(options.of)]
    if options.by:
        chosen = [replace(each, tests=(options.by,)) for each in chosen]
        check(chosen)
    if options.sample:
        chosen = random.Random().sample(chosen, min(options.sample, len(chosen)))
    return chosen


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="only mutants whose name begins so")
    parser.add_argument("--sample", type=int, metavar="N", help="draw N of them")
    parser.add_argument("--of", default="", metavar="PATH", help="only faults of files below")
    parser.add_argument("--by", metavar="TEST", help="try this test, and none of the list's")
    parser.add_argument("--at-once", type=int, default=2, metavar="N", help="how many run at once")
    parser.add_argument("--why", action="store_true", help="say how each catching test failed")
    parser.add_argument(
        "--no-baseline", action="store_true", help="take for granted that tests pass"
    )
    return parser.parse_args()


def main() -> int:
    """Try the chosen mutants; 1 unless every one was caught."""
    options = _options()
    started = time.monotonic()
    mutants = read()
    check(mutants)
    chosen = _chosen(mutants, options)
    if not options.no_baseline:
        _baseline(list(dict.fromkeys(test for each in chosen for test in each.tests)))
    bad = _try_all(chosen, at_once=options.at_once, why=options.why)
    lasted_s = time.monotonic() - started
    print(f"{len(chosen) - bad} of {len(chosen)} mutants caught, in {lasted_s:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Wrong as wrong:
        sys.exit(f"mutants: {wrong}")
