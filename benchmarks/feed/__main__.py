"""`python -m benchmarks.feed`: measure, show, write down."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import uvloop
from rich.console import Console

from benchmarks.feed import __doc__ as about
from benchmarks.feed import propagation, reads, writes
from benchmarks.feed.part import Found, Part
from benchmarks.ground import Ground, Missing, ground, machine

PARTS: Final[Mapping[str, Part]] = {
    "propagation": propagation.PART,
    "writes": writes.PART,
    "reads": reads.PART,
}


async def measured(place: Ground, parts: Sequence[str], seconds: float) -> dict[str, Any]:
    """Measure the parts and return the report; what cannot be measured says why."""
    figures: dict[str, float | None] = {}
    ratios: dict[str, float | None] = {}
    details: dict[str, Any] = {}
    for name, part in PARTS.items():
        figures |= dict.fromkeys(part.figures)
        ratios |= dict.fromkeys(part.ratios)
        if name in parts:
            print(f"measuring {name}", file=sys.stderr, flush=True)
            found = await _or_why_not(place, part, seconds)
            figures |= found.figures
            ratios |= found.ratios
            details[name] = found.details
    return {**figures, "ratios": ratios, "seconds": seconds, **details}


async def _or_why_not(place: Ground, part: Part, seconds: float) -> Found:
    try:
        return await part.measure(place, seconds)
    except Missing as missing:
        return Found({"why_not": str(missing)})
    except Exception as failed:  # noqa: BLE001 - told, and the other figures are worth having
        traceback.print_exc()
        return Found({"failed": repr(failed)})


def main() -> None:
    """Measure, show and write down."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.feed",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there")
    parser.add_argument(
        "--seconds", type=float, default=5.0, metavar="N", help="for each figure, 5 unless told"
    )
    parser.add_argument("--only", nargs="+", choices=[*PARTS], default=[*PARTS])
    given = parser.parse_args()
    logging.getLogger("engine_pg").setLevel(logging.ERROR)
    with ground() as place:
        facts = machine(place.admin_url)  # before: it refuses what would compare with nothing
        report = uvloop.run(measured(place, given.only, given.seconds))
        report["machine"] = facts
    Console(highlight=False).print_json(data=report)
    if given.json:
        given.json.write_text(json.dumps(report, indent=2) + "\n")
    if any("failed" in part for part in report.values() if isinstance(part, dict)):
        sys.exit(1)


if __name__ == "__main__":
    main()
