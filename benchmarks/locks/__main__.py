"""`python -m benchmarks.locks`: measure, show, write down."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import traceback
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import uvloop

from benchmarks.ground import Ground, Missing, ground, machine
from benchmarks.locks import __doc__ as about
from benchmarks.locks.contender import Contender, Node, Place
from benchmarks.locks.etcd import ETCD
from benchmarks.locks.heartbeat import heartbeats
from benchmarks.locks.holding import MANY, handovers, holdings
from benchmarks.locks.naive import NAIVE
from benchmarks.locks.ours import OURS
from benchmarks.locks.redis import REDIS, REDIS_ALWAYS
from benchmarks.locks.report import headlines, show
from benchmarks.locks.resume import resumes
from benchmarks.locks.rounds import CLIENTS, throughput
from benchmarks.locks.takeover import takeovers
from engine_pg.errors import innermost

PEERS: Final = {peer.name: peer for peer in (NAIVE, REDIS, REDIS_ALWAYS, ETCD)}
CONTENDED: Final = ("throughput", "handover", "holding")
Work = Coroutine[Any, Any, dict[str, Any]]
ALONE: Final = ("crash_takeover", "graceful_takeover", "resume", "heartbeat")


async def measured(
    place: Ground,
    peers: Sequence[str],
    parts: Sequence[str],
    seconds: float,
    clients: Sequence[int] = CLIENTS,
) -> dict[str, Any]:
    """Measure the parts and return the report; what cannot be measured says why."""
    report: dict[str, Any] = {"seconds": seconds}
    if any(part in parts for part in CONTENDED):
        report |= await _contended(place, peers, parts, seconds, clients)
    many = max(4, round(8 * seconds))
    works = {
        "crash_takeover": takeovers(place, "crash", many),
        "graceful_takeover": takeovers(place, "leave", many),
        "resume": resumes(place, max(1, round(seconds))),
        "heartbeat": heartbeats(place, max(1.0, 4 * seconds)),
    }
    report |= await _done(works, parts)
    return {**headlines(report, PEERS), **report}


async def _or_why_not(work: Work) -> dict[str, Any]:
    try:
        return await work
    except Missing as missing:
        return {"why_not": str(missing)}
    except Exception as failed:  # noqa: BLE001 - told, and the other figures are worth having
        traceback.print_exc()
        return {"failed": repr(innermost(failed))}


async def _contended(
    place: Ground,
    peers: Sequence[str],
    parts: Sequence[str],
    seconds: float,
    clients: Sequence[int],
) -> dict[str, Any]:
    chosen = [OURS, *(PEERS[name] for name in peers)]
    async with AsyncExitStack() as stack:
        url = stack.enter_context(place.database())
        nodes: dict[str, tuple[Node, Node]] = {}
        told: dict[str, Any] = {}
        for one in chosen:
            told[one.name] = await _opened(one, Place(url, place.folder), stack, nodes)
        works = {
            "throughput": throughput(
                {name: pair[0] for name, pair in nodes.items()}, seconds, clients
            ),
            "handover": handovers(nodes, round(40 * seconds)),
            "holding": holdings({one.name: one for one in chosen}, nodes, MANY),
        }
        return {"contenders": told, **await _done(works, parts)}


async def _done(works: Mapping[str, Work], parts: Sequence[str]) -> dict[str, Any]:
    """Do those works that are asked for, one after the other; what fails is told and passed by."""
    report: dict[str, Any] = {}
    for part, work in works.items():
        if part in parts:
            print(f"measuring {part}", file=sys.stderr, flush=True)
            report[part] = await _or_why_not(work)
        else:
            work.close()
    return report


async def _opened(
    one: Contender, place: Place, stack: AsyncExitStack, nodes: dict[str, tuple[Node, Node]]
) -> dict[str, Any]:
    told = {"what": one.what, "durability": one.durability, "waiting": one.waiting}
    try:
        nodes[one.name] = await stack.enter_async_context(one.open(place))
    except Missing as missing:
        return {**told, "measured": False, "why_not": str(missing)}
    return {**told, "measured": True}


def main() -> None:
    """Measure, show and write down."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.locks",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there")
    parser.add_argument(
        "--seconds", type=float, default=5.0, metavar="N", help="for each figure, 5 unless told"
    )
    parser.add_argument(
        "--peers", nargs="*", choices=[*PEERS], default=[*PEERS], help="all unless told"
    )
    parts = (*CONTENDED, *ALONE)
    parser.add_argument("--only", nargs="+", choices=parts, default=parts, help="all unless told")
    given = parser.parse_args()
    logging.getLogger("engine_pg").setLevel(logging.ERROR)  # members end and sessions break here
    with ground() as place:
        facts = machine(place.admin_url)  # before: it refuses what would compare with nothing
        report = uvloop.run(measured(place, given.peers, given.only, given.seconds))
        report["machine"] = facts
    show(report)
    if given.json:
        given.json.write_text(json.dumps(report, indent=2) + "\n")
    if any("failed" in part for part in report.values() if isinstance(part, dict)):
        sys.exit(1)


if __name__ == "__main__":
    main()
