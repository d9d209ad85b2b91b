"""`python -m benchmarks.jobs`: measure, show, write down."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import uvloop

from benchmarks.ground import Ground, Missing, ground, machine
from benchmarks.jobs import __doc__ as about
from benchmarks.jobs.contender import Contender
from benchmarks.jobs.contenders import ALL
from benchmarks.jobs.recovery import recoveries
from benchmarks.jobs.report import NODES, headlines, show
from benchmarks.jobs.rounds import standing

PARTS: Final = ("standing", "recovery")


async def measured(
    place: Ground, peers: Sequence[str], parts: Sequence[str], seconds: float
) -> dict[str, Any]:
    """Measure the parts and return the report; what cannot be measured says why."""
    report: dict[str, Any] = {"seconds": seconds, "contenders": {}}
    with ExitStack() as stack:
        chosen: dict[str, tuple[Contender, str]] = {}
        for name in ("ours", *peers):
            one, url = ALL[name], stack.enter_context(place.database())
            told: dict[str, Any] = {"what": one.what, "measured": True}
            try:
                await one.prepare(url)
            except Missing as missing:
                told |= {"measured": False, "why_not": str(missing)}
            else:
                chosen[name] = (one, url)
            report["contenders"][name] = told
        if "standing" in parts:
            for nodes in NODES:
                print(f"measuring with {nodes} workers", file=sys.stderr, flush=True)
                report[f"nodes_{nodes}"] = await standing(chosen, nodes, seconds)
        if "recovery" in parts:
            print("measuring recovery", file=sys.stderr, flush=True)
            report["recovery"] = await recoveries(chosen)
    return {**headlines(report), **report}


def main() -> None:
    """Measure, show and write down."""
    peers = [name for name in ALL if name != "ours"]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.jobs",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there")
    parser.add_argument(
        "--seconds", type=float, default=5.0, metavar="N", help="for each figure, 5 unless told"
    )
    parser.add_argument("--peers", nargs="*", choices=peers, default=peers, help="all unless told")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="all unless told")
    given = parser.parse_args()
    logging.getLogger("engine_pg").setLevel(logging.ERROR)
    with ground() as place:
        facts = machine(place.admin_url)  # before: it refuses what would compare with nothing
        report = uvloop.run(measured(place, given.peers, given.only, given.seconds))
        report["machine"] = facts
    show(report)
    if given.json:
        given.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
