"""`python -m benchmarks.failover`: measure, show, write down."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.failover import __doc__ as about
from benchmarks.failover import default
from benchmarks.failover.report import figures, page, show
from benchmarks.ground import host
from engine_pg.clock import boottime
from engine_pg.formation.programs import programs
from lab.faults import UNSEATING

LOCKS: Final = 1000
TTL_S: Final = 5.0
_MADE_S: Final = 300.0  # a formation, and the end of everything
_EACH_S: Final = {"ours": 180.0, "default": 420.0}
"""What a failover may take at most, with all that is before and after it."""


def main() -> int:
    """Measure, show and write down; 1: not all could be measured, or a promise broke."""
    given = _parsed()
    signal.signal(signal.SIGTERM, _stop)
    began = boottime()
    facts = host() | {"postgresql": _version(), "data": "in memory"}
    with tempfile.TemporaryDirectory(prefix="engine-pg-benchmark-") as home:
        folder = Path(home)
        complete = _measured(folder, given)
        report = figures(*(_found(folder / name) for name in ("2", "3", "default")))
    report |= {"complete": complete, "locks": LOCKS, "ttl_s": TTL_S, "machine": facts}
    report["took_s"] = round(boottime() - began)
    show(report)
    if given.json:
        given.json.write_text(json.dumps(report, indent=2) + "\n")
    if given.page:
        given.page.write_text(page(report))
    return 0 if complete and not report["violations"] else 1


def _version() -> str:
    """Return the version of the servers that pg_auto_failover runs."""
    words = [str(programs().postgres / "postgres"), "--version"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()[2]


def _stop(number: int, _: object) -> None:
    """End in order: what runs beside ends as well."""
    sys.exit(128 + number)


def _measured(folder: Path, given: argparse.Namespace) -> bool:
    """Let everything happen, each kind of formation in a file of its own; say whether it did."""
    rounds = given.default_repeat * len(given.faults)
    words = (str(folder / "default"), str(given.default_repeat), *given.faults)
    with _started(default.__name__, *words) as beside:
        whole = [_failovers(folder / f"{n}", n, given) for n in given.data_nodes]
        print("waiting for the formation by default", flush=True)
        whole.append(_ended(beside, _MADE_S + rounds * _EACH_S["default"]))
    return all(whole)


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.failover",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there")
    parser.add_argument("--page", type=Path, metavar="FILE", help="and there for people")
    parser.add_argument(
        "--repeat", type=int, default=5, metavar="N", help="each fault so often, 5 unless told"
    )
    parser.add_argument(
        "--default-repeat",
        type=int,
        default=2,
        metavar="N",
        help="the same by default, a minute each time, beside ours; 2 unless told, 0: not at all",
    )
    parser.add_argument(
        "--faults", nargs="+", choices=UNSEATING, default=UNSEATING, help="all unless told"
    )
    parser.add_argument(
        "--data-nodes", nargs="+", type=int, choices=(2, 3), default=(2, 3), help="both unless told"
    )
    return parser.parse_args()


@contextmanager
def _started(module: str, *words: str) -> Generator[subprocess.Popen[bytes]]:
    """Run a module beside a block, and end it with that."""
    process = subprocess.Popen([sys.executable, "-m", module, *words])
    try:
        yield process
    finally:
        process.terminate()  # its enclosure takes everything along
        process.wait()


def _ended(process: subprocess.Popen[bytes], bound_s: float) -> bool:
    """Wait for a process, not for ever; say whether it came to a good end."""
    try:
        return process.wait(bound_s) == 0
    except subprocess.TimeoutExpired:
        print(f"given up after {bound_s:g} s: {process.args}", file=sys.stderr)
        return False


def _failovers(results: Path, nodes: int, given: argparse.Namespace) -> bool:
    print(f"measuring with {nodes} data nodes", flush=True)
    count = given.repeat * len(given.faults)
    words = {
        "--count": count,
        "--data-nodes": nodes,
        "--locks": LOCKS,
        "--ttl": TTL_S,
        "--results": results,
    }
    named = [str(word) for pair in words.items() for word in pair]
    with _started("lab", *named, "--kinds", *given.faults) as run:
        return _ended(run, _MADE_S + count * _EACH_S["ours"])


def _found(results: Path) -> list[dict[str, Any]]:
    if not results.exists():
        return []
    return [json.loads(line) for line in results.read_text().splitlines()]


if __name__ == "__main__":
    sys.exit(main())
