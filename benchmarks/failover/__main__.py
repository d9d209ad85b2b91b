"""`python -m benchmarks.failover`: measure, show, write down."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.failover import __doc__ as about
from benchmarks.failover import default
from benchmarks.failover.report import figures, show
from benchmarks.ground import ground, machine
from lab.faults import KINDS

LOCKS = 1000
TTL_S = 5.0


def main() -> None:
    """Measure, show and write down."""
    given = _parsed()
    with ground() as place:
        facts = machine(place.admin_url)
    with tempfile.TemporaryDirectory(prefix="engine-pg-benchmark-") as home, ExitStack() as exits:
        folder = Path(home)
        rounds = (str(folder / "default"), str(given.default_repeat))
        beside = exits.enter_context(_started(default.__name__, *rounds, *given.faults))
        for nodes in given.data_nodes:
            _failovers(folder / f"{nodes}", nodes, given.faults, given.repeat)
        if beside.wait():
            print("the default formation did not come to its end", file=sys.stderr)
        report = figures(*(_found(folder / name) for name in ("2", "3", "default")))
    report["locks"] = LOCKS
    report["machine"] = facts
    show(report)
    if given.json:
        given.json.write_text(json.dumps(report, indent=2) + "\n")


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.failover",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there")
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
    parser.add_argument("--faults", nargs="+", choices=KINDS, default=KINDS, help="all unless told")
    parser.add_argument(
        "--data-nodes", nargs="+", type=int, choices=(2, 3), default=(2, 3), help="both unless told"
    )
    return parser.parse_args()


def _started(module: str, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", module, *words])


def _failovers(results: Path, nodes: int, faults: Sequence[str], repeat: int) -> None:
    print(f"measuring with {nodes} data nodes", file=sys.stderr, flush=True)
    words = {
        "--count": repeat * len(faults),
        "--data-nodes": nodes,
        "--locks": LOCKS,
        "--ttl": TTL_S,
        "--results": results,
    }
    named = [str(word) for pair in words.items() for word in pair]
    with _started("lab", *named, "--kinds", *faults) as run:
        run.wait()


def _found(results: Path) -> list[dict[str, Any]]:
    if not results.exists():
        return []
    return [json.loads(line) for line in results.read_text().splitlines()]


if __name__ == "__main__":
    main()
