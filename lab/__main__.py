"""`python -m lab`: failovers in a row, each under load, each judged; 1: a promise broke.

What was found goes to a file of JSON lines; --report writes a table of all that is in it, of
earlier runs as well.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast, get_args

from engine_pg.clock import boottime
from engine_pg.errors import Invalid
from engine_pg.formation.profiles import PROFILES
from engine_pg.formation.programs import programs
from lab.enclosure import enclosed, refusal
from lab.failover import fail_over
from lab.faults import Kind
from lab.report import table
from lab.stage import Size, stage

ALTERNATING: Final[tuple[Kind, ...]] = ("kill", "freeze", "partition")
_IN_MEMORY: Final = Path("/dev/shm/lab")
"""An enclosure has its own: what is measured is not the disk, and nothing is left behind."""


def main() -> int:
    """Run as many failovers as are asked for, in an enclosure."""
    given = _parsed()
    if why := _why_not():
        print(f"failovers on machines of their own cannot be had here: {why}", file=sys.stderr)
        return 2
    kept = Path(tempfile.mkdtemp(prefix="engine-pg-lab-"))
    results: Path = given.results or kept / "failovers.jsonl"
    results.parent.mkdir(parents=True, exist_ok=True)
    results.touch()
    code = enclosed(lambda: _enclosed(given, results, kept))
    found = [json.loads(line) for line in results.read_text().splitlines() if line]
    text = table(found)
    print(f"\n{text}")
    if given.report:
        given.report.write_text(text)
    if code:
        print(f"what the parts logged is in {kept}")
    else:
        shutil.rmtree(kept)
    return code


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m lab", description=__doc__)
    parser.add_argument("--count", type=int, default=3, help="failovers in a row, 3 unless told")
    parser.add_argument(
        "--kinds",
        nargs="+",
        choices=get_args(Kind),
        default=ALTERNATING,
        help="one after the other; kill, freeze and partition unless told",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--data-nodes", type=int, choices=(2, 3), default=2)
    parser.add_argument("--profile", choices=PROFILES, default="fast", help="fast unless told")
    parser.add_argument("--engines", type=int, default=2)
    parser.add_argument("--locks", type=int, default=50, help="held by each of two members")
    parser.add_argument("--ttl", type=float, default=2.0, help="lease in seconds")
    parser.add_argument("--results", type=Path, metavar="FILE", help="append what is found there")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the table there")
    return parser.parse_args()


def _why_not() -> str:
    try:
        programs()
    except Invalid as missing:
        return str(missing)
    return refusal()


def _enclosed(given: argparse.Namespace, results: Path, kept: Path) -> int:
    _IN_MEMORY.mkdir()
    _IN_MEMORY.chmod(0o711)  # the servers' account must pass through
    return asyncio.run(_run(given, results, kept))


async def _run(given: argparse.Namespace, results: Path, kept: Path) -> int:
    size = Size(given.data_nodes, given.engines, given.locks, given.ttl, given.profile)
    broken: list[str] = []
    try:
        async with stage(_IN_MEMORY, size, _tell) as built:
            for number in range(given.count):
                kind = given.kinds[number % len(given.kinds)]
                began = boottime()
                seen = await fail_over(built, kind, given.seed + number)
                found = {"seed": given.seed + number, "number": number + 1, **seen.figures(built)}
                found["took_s"] = round(boottime() - began, 1)
                with results.open("a") as lines:
                    lines.write(json.dumps(found) + "\n")
                _told(number + 1, given.count, found)
                broken += [f"{number + 1}, {kind}: {said}" for said in seen.violations]
    except BaseException:
        broken.append("it did not come to its end")
        raise
    finally:
        if broken:
            shutil.copytree(_IN_MEMORY, kept, ignore=_data, dirs_exist_ok=True)
    print("\n".join(broken))
    return 1 if broken else 0


def _data(folder: str, names: Sequence[str]) -> set[str]:
    """Leave out what is large, and what is no file."""
    large = {"data", "sockets", "backup"}
    return {name for name in names if name in large or Path(folder, name).is_socket()}


def _told(number: int, count: int, found: dict[str, Any]) -> None:
    figures = ", ".join(
        f"{name[:-2].replace('_', ' ')} {cast('float', found[name]):.2f} s"
        for name in ("write_gap_s", "writable_s", "resume_s", "read_gap_s", "whole_s", "took_s")
    )
    wrong = "; ".join(found["violations"]) or "nothing broken"
    _tell(f"{number} of {count}, {found['kind']}: {figures}; lost {found['lost']}; {wrong}")


def _tell(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
