"""`python -m chaos`: one run (`make chaos`), or many one after the other (`make soak`).

Exit status 1 when a promise broke; the history is kept then, and its folder named.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from chaos.conductor import Wanted, conduct, plan
from chaos.report import report
from chaos.schedule import KINDS
from engine_pg.clock import boottime
from lab.enclosure import enclosed, refusal

PIECE_SEEDS = 1000


def tell(line: str) -> None:
    print(line, flush=True)


def main() -> int:
    options = _parsed()
    if options.minutes:
        return _soak(options)
    kinds = [kind.strip() for kind in options.kinds.split(",") if kind.strip()] or list(KINDS)
    if unknown := set(kinds) - set(KINDS):
        print(f"There is no fault {', '.join(unknown)}.", file=sys.stderr)
        return 2
    wanted = Wanted(
        options.seconds,
        options.seed,
        options.nodes,
        options.workers,
        options.vms,
        options.ttl,
        kinds,
    )
    if options.plan:
        print("\n".join(plan(wanted, options.plan)))
        return 0
    return _one(options, wanted)


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of faults")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--nodes", type=int, default=3, help="engine nodes; 0: lock clients only")
    parser.add_argument("--workers", type=int, default=4, help="lock clients")
    parser.add_argument("--vms", type=int, default=6, help="VMs driven over the API")
    parser.add_argument("--ttl", type=float, default=2.0, help="lease in seconds")
    parser.add_argument("--kinds", default="", help=f"some of: {', '.join(KINDS)}")
    parser.add_argument(
        "--network",
        choices=("any", "namespaces", "relays"),
        default="any",
        help="what links are made of; any: namespaces where the machine permits them",
    )
    parser.add_argument("--plan", type=int, default=0, help="only print so many faults")
    parser.add_argument("--report", type=Path, help="write the report there")
    parser.add_argument("--results", type=Path, help="append what was found, one JSON line")
    parser.add_argument("--keep", action="store_true", help="keep the history in any case")
    parser.add_argument("--minutes", type=float, default=0.0, help="soak: seed after seed")
    parser.add_argument("--piece", type=int, default=1, help="of a soak: which seeds")
    return parser.parse_args()


def _one(options: argparse.Namespace, wanted: Wanted) -> int:
    """Run once, enclosed where this is wanted and permitted; clean up from outside."""
    why = "asked for" if options.network == "relays" else refusal()
    if why:
        tell(f"Links are relays: {why}")
    if why and options.network == "namespaces":
        return 2
    folder = Path(tempfile.mkdtemp(prefix=f"engine-pg-chaos-{options.seed}-"))
    folder.chmod(0o711)  # the server's account must pass through
    if why:
        code = _enclosed(options, wanted, folder)
    else:
        code = enclosed(lambda: _enclosed(options, replace(wanted, namespaces=True), folder))
    if code or options.keep:
        print(f"The history is in {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return code


def _enclosed(options: argparse.Namespace, wanted: Wanted, folder: Path) -> int:
    tell(f"seed {options.seed}, {options.seconds:g} s")
    found = asyncio.run(_cancellable(wanted, folder))
    if options.results:
        options.results.parent.mkdir(parents=True, exist_ok=True)
        with options.results.open("a") as results:
            results.write(json.dumps(found) + "\n")
    text = report([found])
    print(f"\n{text}")
    if options.report:
        options.report.write_text(text)
    if found["violations"]:
        print(f"VIOLATIONS with seed {options.seed}")
    return 1 if found["violations"] else 0


async def _cancellable(wanted: Wanted, folder: Path) -> dict:
    """Let SIGTERM end everything in order, as Ctrl-C does."""
    run = asyncio.current_task()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, run.cancel)
    return await conduct(wanted, folder, tell)


def _soak(options: argparse.Namespace) -> int:
    """Run seed after seed, each in a process of its own; report on all results there are."""
    results = options.results or Path("soak.jsonl")
    end = boottime() + 60 * options.minutes
    seed = PIECE_SEEDS * options.piece
    broken = 0
    while boottime() < end:
        seed += 1
        seconds = min(options.seconds, max(20.0, end - boottime()))
        words = ["--seconds", f"{seconds:g}", "--seed", f"{seed}", "--results", str(results)]
        same = ("nodes", "workers", "vms", "ttl", "kinds", "network")
        more = [f"--{name}={getattr(options, name)}" for name in same]
        run = subprocess.run([sys.executable, "-m", "chaos", *words, *more], check=False)
        broken += run.returncode != 0
    found = [json.loads(line) for line in results.read_text().splitlines()]
    text = report(found)
    print(text)
    if options.report:
        options.report.write_text(text)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
