"""One run: start everything, let it work, hurt it, let it settle, and judge what was recorded."""

from __future__ import annotations

import asyncio
import os
import platform
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from chaos.arena import WORKERS_DATABASE, Arena, open_arena
from chaos.checks import Violation, exclusion, fairness, handover, leaks, resumption, tokens, writes
from chaos.checks.timeline import Span, Timeline
from chaos.history import load, operations
from chaos.nemesis import Nemesis, heal_everything
from chaos.schedule import KINDS, schedule
from engine_pg.clock import boottime
from engine_pg.demo.furnish import furnish
from engine_pg.demo.story import Scene, play
from engine_pg.demo.target import Target
from engine_pg.demo.verdict import Figure, Report
from engine_pg.demo.watch import Watch
from engine_pg.errors import EngineError

LEFT = {
    "grants": "select kind, id, mode, token, member_id from lock_grant",
    "tickets": "select kind, id, mode, ticket, member_id from lock_ticket",
    "advisory locks": """
select l.classid, l.objid, l.mode, a.application_name from pg_locks l left join pg_stat_activity a
    on a.pid = l.pid
 where l.locktype = 'advisory' and l.database = (select oid from pg_database
                                                  where datname = current_database())
""",
}
MEMBERS = {"live members": "select member_id, node from member where state = 'live'"}
VERSION = "show server_version"
# Where the two are further apart than a run lasts, the database's clock had jumped between them.
WRITES = """
select w.write_id, w.key, w.token, w.previous, w.count,
       coalesce(pg_xact_commit_timestamp(w.xmin) - m.ended_at
                between interval '1 microsecond' and interval '30 min', false) as after_end
  from chaos_write w left join member m using (member_id) order by w.key, w.count
"""
QUIET_S = 20.0
WARM_UP_S = 3.0
SLACK_S = 0.1  # from a win's commit to the note of it, on a busy machine
RESUMED_S = 5.0
STARVED_S = 25.0
LONGEST_FREEZE_S = 20.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a run is asked for."""

    seconds: float = 60.0
    seed: int = 1
    nodes: int = 3
    workers: int = 4
    vms: int = 6
    ttl_s: float = 2.0
    kinds: Sequence[str] = KINDS
    namespaces: bool = False

    @property
    def names(self) -> list[str]:
        return [f"worker-{number}" for number in range(1, self.workers + 1)]

    def schedule(self) -> Iterator[Any]:
        nodes = [f"node-{number}" for number in range(1, self.nodes + 1)]
        longest_s = min(LONGEST_FREEZE_S, self.seconds / 10)
        return schedule(self.seed, nodes, self.names, longest_s=longest_s, kinds=self.kinds)


async def conduct(wanted: Wanted, folder: Path, tell: Callable[[str], None]) -> dict[str, Any]:
    """Run once in a folder; return what was found."""
    os.environ["ENGINE_LEASE_TTL_S"] = f"{wanted.ttl_s:g}"
    os.environ["ENGINE_HOST_INFLIGHT_BOUND_S"] = "2"
    began = boottime()
    async with open_arena(
        folder,
        seed=wanted.seed,
        ttl_s=wanted.ttl_s,
        nodes=wanted.nodes,
        workers=wanted.names,
        namespaces=wanted.namespaces,
        tell=tell,
    ) as arena:
        tell(f"Everything runs after {boottime() - began:.1f} s; the history is in {arena.records}")
        story = await _story(arena, wanted)
        left = await _settle(arena, wanted)
        rows = await _rows(arena.servers.url(WORKERS_DATABASE), WRITES)
        version = (await _rows(arena.servers.url(), VERSION))[0]["server_version"]
        mechanism = arena.network.mechanism
    found = await asyncio.to_thread(judge, folder / "history", wanted.ttl_s, rows, left, story)
    machine = {
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "load": [round(load, 1) for load in os.getloadavg()],
        "python": platform.python_version(),
        "postgresql": version,
        "network": mechanism,
    }
    took_s = round(boottime() - began, 1)
    return {**asdict(wanted), "machine": machine, "took_s": took_s, **found}


async def _story(arena: Arena, wanted: Wanted) -> Report:
    if arena.stack is None:
        await _hurt(arena, wanted, None)
        return Report([])
    async with arena.stack.client() as client:
        ports = arena.stack.host_ports
        await furnish(client, host_ports=ports, vms=0, tell=arena.tell)

    async def incident(scene: Scene) -> Sequence[Figure]:
        await _hurt(arena, wanted, scene.watch)
        with suppress(EngineError):  # its connection may have died unnoticed
            await scene.watch.members()
        return []

    target = Target(arena.stack.state)
    return await play(incident, target, vms=wanted.vms, seed=wanted.seed, tell=arena.tell)


async def _hurt(arena: Arena, wanted: Wanted, watch: Watch | None) -> None:
    nemesis = Nemesis(arena, watch)
    await asyncio.sleep(WARM_UP_S)
    arena.history.note("begin")
    end = boottime() + wanted.seconds
    for fault in wanted.schedule():
        if boottime() + fault.pause_s >= end:
            break
        await asyncio.sleep(fault.pause_s)
        await nemesis.perform(fault)
    await heal_everything(arena)
    await asyncio.sleep(wanted.ttl_s + 1.0)
    arena.history.note("end")


async def _settle(arena: Arena, wanted: Wanted) -> dict[str, dict[str, list[Any]]]:
    """Let everybody release everything, then leave; return what is left each time."""
    left: dict[str, dict[str, list[Any]]] = {}
    for worker in arena.workers.values():
        if worker.pid is not None:
            os.kill(worker.pid, signal.SIGUSR1)
    workers_url = arena.servers.url(WORKERS_DATABASE)
    left["when the workers were quiet"] = await _left(workers_url, LEFT)
    async with asyncio.TaskGroup() as group:
        for worker in arena.workers.values():
            group.create_task(worker.stop())
    left["when the workers had left"] = await _left(workers_url, LEFT | MEMBERS)
    if wanted.nodes:
        left["when the clients had gone"] = await _left(arena.servers.url("engine"), LEFT)
    return left


async def _left(url: str, queries: dict[str, str]) -> dict[str, list[Any]]:
    deadline = boottime() + QUIET_S
    while True:
        left = {kind: await _rows(url, query) for kind, query in queries.items()}
        if not any(left.values()) or boottime() > deadline:
            return left
        await asyncio.sleep(0.1)


async def _rows(url: str, query: str) -> list[dict[str, Any]]:
    connection = await psycopg.AsyncConnection.connect(url, autocommit=True, row_factory=dict_row)
    async with connection:
        try:
            return await (await connection.execute(query)).fetchall()
        except psycopg.errors.UndefinedTable:
            return []


def judge(
    folder: Path,
    ttl_s: float,
    rows: Sequence[dict[str, Any]],
    left: dict[str, dict[str, list[Any]]],
    story: Report,
) -> dict[str, Any]:
    """Judge the recorded history."""
    records = load(folder)
    done = operations(records)
    acts = [record for record in records if record["kind"] == "act"]
    timeline = Timeline(records, ttl_s=ttl_s)
    moved = handover.handovers(timeline)
    outages = resumption.resumptions(timeline, done)
    violations: list[Violation] = [
        *exclusion.check(acts),
        *tokens.check_tokens(done),
        *tokens.check_terms(records),
        *writes.check(done, rows),
        *(each for when, found in left.items() for each in leaks.check(when, found)),
        *handover.check(timeline, moved, slack_s=SLACK_S),
        *handover.check_newcomers(timeline),
        *resumption.check(outages, bound_s=RESUMED_S),
        *fairness.check(timeline, done, bound_s=STARVED_S),
        *(
            Violation("nothing lost", f"{figure.title}: {figure.value:g}")
            for figure in story.figures
            if not figure.kept
        ),
    ]
    outcomes: dict[str, Counter[str]] = {}
    for operation in done:
        outcomes.setdefault(operation.op, Counter())[operation.outcome] += 1
    outcomes["act"] = Counter("done" if act["done"] else "refused" for act in acts)
    outcomes["act"]["late"] = sum(exclusion.late(act) for act in acts)
    return {
        "faults": Counter(span.kind for span in timeline.faults if "skipped" not in span.found),
        "varieties": Counter(
            (span.kind, variety(span)) for span in timeline.faults if variety(span)
        ).most_common(),
        "troubles": [
            f"{span.kind}: {span.found[name]}"
            for span in timeline.faults
            for name in ("trouble", "skipped")
            if name in span.found
        ],
        "operations": outcomes,
        "handovers": [asdict(each) for each in moved],
        "node_takeovers": [
            dict(span.found) for span in timeline.faults if "leaderships_s" in span.found
        ],
        "resumptions": [asdict(each) for each in outages],
        "longest_wait_s": fairness.longest_wait_s(timeline, done),
        "shares": handover.shares(timeline),
        "figures": {figure.name: figure.value for figure in story.figures},
        "notes": list(story.notes),
        "violations": [str(each) for each in violations],
    }


def variety(span: Span) -> str:
    """Say which of a kind a fault was, by what was drawn and what was found."""
    details, found = span.fault["details"], span.found
    if "skipped" in found:
        return ""
    told = {
        "cut one way": "{way}",
        "standby away": "{way}",
        "clock jump": "{target} {by_s:+} s{cut_off}",
        "failover": "old primary {old}",
        "full disk": "{of}, by its {by}{died}",
        "terminate": "{role}",
    }.get(span.kind, "")
    who = {"target": span.fault["target"].partition("-")[0]}
    died = ", which gave up" if found.get("died") else ""
    cut_off = " and cut off" if details.get("cut") and span.fault["target"] != "database" else ""
    return told.format(**details, **who, died=died, cut_off=cut_off)


def plan(wanted: Wanted, count: int) -> list[str]:
    """Return the first faults of a seed's schedule, as they will be performed."""
    faults = wanted.schedule()
    return [str(next(faults)) for _ in range(count)]
