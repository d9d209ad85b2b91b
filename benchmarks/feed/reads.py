"""What a read costs: a list of a thousand VMs as XML, from the replica and from the database.

The replica's is fresh, behind a barrier; beside it the same without a barrier, whose share of the
whole is thus known. Then 200 reads at once, a node that joins, and the memory of a replica.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import statistics
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.feed.furnished import HOSTS, VMS, furnish
from benchmarks.feed.getting import Client, Target, rate
from benchmarks.feed.part import Found, Part
from benchmarks.ground import Ground
from benchmarks.locks.rounds import rotated
from engine_pg.clock import boottime
from engine_pg.db.database import Database

CLIENTS: Final = 32
AT_ONCE: Final = 200
ROUNDS: Final = 3
JOINS: Final = 3
KINDS: Final = ("ours", "unbarred", "queried")
BARRED: Final = ("ours", "unbarred")
BARRED_ROUNDS: Final = 9
"""So small a difference is drowned by what the machine does meanwhile: many short rounds."""
LISTED: Final = "/ovirt-engine/api/vms?max=1000"
ALL: Final = f"/ovirt-engine/api/vms?max={VMS}"
QUERIED: Final = "/queried/vms?max=1000"
_BOUND_S: Final = 60.0


@asynccontextmanager
async def node(url: str) -> AsyncGenerator[tuple[Process, dict[str, Any]]]:
    """Yield the process that is read from, and what it said when it was ready."""
    words = (sys.executable, "-m", "benchmarks.feed.readable", url)
    process = await asyncio.create_subprocess_exec(*words, stdin=PIPE, stdout=PIPE)
    try:
        yield process, await heard(process)
    finally:
        process.kill()
        await process.wait()


async def heard(process: Process) -> dict[str, Any]:
    """Return what a process says next."""
    assert process.stdout is not None
    async with asyncio.timeout(_BOUND_S):
        return json.loads(await process.stdout.readline())


async def asked(process: Process) -> dict[str, Any]:
    """Ask a process for its counts."""
    assert process.stdin is not None
    process.stdin.write(b"\n")
    return await heard(process)


async def measure(place: Ground, seconds: float) -> Found:
    """Measure the three ways in alternating rounds, then the rest."""
    with place.database() as url:
        async with Database(url, pool_max=1) as db:
            token = await furnish(db)
        joins = [await joined(url, number) for number in range(JOINS if seconds >= 1 else 1)]
        async with node(url) as (process, said):
            targets = {
                "ours": Target(said["ports"]["ours"], LISTED, token),
                "unbarred": Target(said["ports"]["unbarred"], LISTED, token),
                "queried": Target(said["ports"]["ours"], QUERIED, token),
            }
            await check_same(targets)
            rates, refused = await rates_of(targets, KINDS, ROUNDS, seconds)
            slices_s = seconds * ROUNDS / BARRED_ROUNDS
            barred, _ = await rates_of(targets, BARRED, BARRED_ROUNDS, slices_s)
            barriers = await barriers_at_once(process, targets["ours"])
            client = await Client.connected(targets["ours"])
            await client.get(Target(targets["ours"].port, ALL, token))
            client.close()
            encoded = await asked(process)
    median = {kind: statistics.median(found) for kind, found in rates.items()}
    details: dict[str, Any] = {
        "hosts": HOSTS,
        "vms": VMS,
        "clients": CLIENTS,
        "answers_per_s": {kind: round(found, 1) for kind, found in median.items()},
        "refused": refused,
        "joins_s": [round(took_s, 2) for took_s, _ in joins],
        "joins_processor_s": [round(busy_s, 2) for _, busy_s in joins],
        "copied_s": said["copied_s"],
        "memory_mib": {
            "without": said["empty_mib"],
            "replica": round(said["copied_mib"] - said["empty_mib"], 1),
            "with_all_vms_encoded": round(encoded["mib"] - said["empty_mib"], 1),
        },
    }
    figures: dict[str, float | None] = {
        "barrier_share": round(1 - pairwise(barred, "ours", "unbarred"), 3),
        "barriers_per_200_reads": barriers,
        "join_s": round(statistics.median(took_s for took_s, _ in joins), 2),
        "replica_mib_per_10000_vms": details["memory_mib"]["replica"],
    }
    return Found(details, figures, {"reads_vs_query": round(pairwise(rates, "ours", "queried"), 2)})


def pairwise(rates: dict[str, list[float]], one: str, other: str) -> float:
    """Return the median of the ratios within each round."""
    return statistics.median(a / b for a, b in zip(rates[one], rates[other], strict=True))


async def check_same(targets: dict[str, Target]) -> None:
    """See that all ways give the same answer."""
    answers: set[bytes] = set()
    for target in targets.values():
        client = await Client.connected(target)
        answers.add(await client.get(target))
        client.close()
    if len(answers) != 1:
        raise RuntimeError("the answers are not the same")


async def rates_of(
    targets: dict[str, Target], kinds: Sequence[str], rounds: int, seconds: float
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Return the answers a second, round by round, and how often each way had none."""
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    refusals: dict[str, int] = dict.fromkeys(kinds, 0)
    for number in range(rounds):
        for kind in rotated(kinds, number):
            answers_per_s, refused = await rate(targets[kind], CLIENTS, seconds)
            rates[kind].append(answers_per_s)
            refusals[kind] += refused
    return rates, refusals


async def barriers_at_once(process: Process, listed: Target) -> int:
    """Return how many barriers 200 reads cause that are sent at once."""
    target = Target(listed.port, "/ovirt-engine/api/vms?max=10", listed.token)
    clients = [await Client.connected(target) for _ in range(AT_ONCE)]
    for client in clients[:1]:
        await client.get(target)
    before = await asked(process)
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client.get(target))
    after = await asked(process)
    for client in clients:
        client.close()
    return after["barriers"] - before["barriers"]


async def joined(url: str, number: int) -> tuple[float, float]:
    """Return how long a node takes from its start to being ready, and a processor's part of it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
    told = {
        "ENGINE_DATABASE_URL": url,
        "ENGINE_LISTEN_PORT": str(port),
        "ENGINE_NODE": f"joins-{number}",
        "ENGINE_LOG_LEVEL": "error",
    }
    began_at = boottime()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "engine_pg", "serve"),
        env={k: v for k, v in os.environ.items() if not k.startswith("ENGINE_")} | told,
        stdout=DEVNULL,
    )
    try:
        async with asyncio.timeout(_BOUND_S):
            while not await ready(port):  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(0.01)
        return boottime() - began_at, busy_s(process.pid)
    finally:
        await ended(process)


async def ended(process: Process) -> None:
    """Have a process stop; one that does not within its bound is killed, and that is said."""
    process.terminate()
    try:
        async with asyncio.timeout(_BOUND_S):
            await process.wait()
    except TimeoutError:
        sys.stderr.write(f"a node did not stop within {_BOUND_S:g} s, and was killed\n")
        process.kill()
        await process.wait()


def busy_s(pid: int) -> float:
    """Return how long a process has had a processor."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def ready(port: int) -> bool:
    """Tell whether a node says that it is ready."""
    target = Target(port, "/readyz", "nobody")
    try:
        client = await Client.connected(target)
    except OSError:
        return False
    try:
        return b'"ready"' in await client.get(target)
    except (RuntimeError, asyncio.IncompleteReadError):
        return False
    finally:
        client.close()


PART: Final = Part(
    measure,
    figures=("barrier_share", "barriers_per_200_reads", "join_s", "replica_mib_per_10000_vms"),
    ratios=("reads_vs_query",),
)
