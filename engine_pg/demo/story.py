"""What every story about a failure has in common: clients at work, an incident, a reckoning.

Whatever was acknowledged must be found and final, the hosts' journal must be clean, and the books
must say of each VM what its host says.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from engine_pg.clock import boottime
from engine_pg.db.tx import Record
from engine_pg.demo.load import Load, Tally, demo_vms
from engine_pg.demo.rest import Client
from engine_pg.demo.target import Target
from engine_pg.demo.verdict import Figure, Report
from engine_pg.demo.watch import Watch
from engine_pg.errors import Unavailable

_HOST_CALL_S: Final = 0.25
_AFTERMATH_S: Final = 60.0
_FINAL_S: Final = 60.0
_SETTLED_S: Final = 15.0
_POLL_S: Final = 0.25
_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Scene:
    """What an incident works with."""

    target: Target
    watch: Watch
    load: Load
    dice: random.Random
    tell: Callable[[str], None]


Incident = Callable[[Scene], Awaitable[Sequence[Figure]]]


async def play(
    incident: Incident, target: Target, *, vms: int, seed: int, tell: Callable[[str], None]
) -> Report:
    """Let clients work, let the incident happen, let them work on, and take stock."""
    dice = random.Random(seed)
    await target.until_whole()
    before = await target.judged()
    tally = Tally()
    async with (
        target.client() as client,
        target.client(tally.hear) as working,
        Watch(target.database_url) as watch,
        demo_vms(client, vms, tell) as own,
    ):
        load = Load(working, own.made, tally, dice)
        scene = Scene(target, watch, load, dice, tell)
        async with _slow_hosts(target), load.running():
            tell(f"{vms} VMs are started and stopped through {len(target.nodes)} nodes")
            if await load.each_acknowledged(1, _AFTERMATH_S):
                raise Unavailable(f"the clients got nowhere within {_AFTERMATH_S:g} s")
            figures = await incident(scene)
            tell("The clients go on")
            stuck = await load.each_acknowledged(1, _AFTERMATH_S)
        found = await _final(watch, tally, tell)
        astray = await _astray(target, client, own.made)
        verdict = await target.judged()
        await target.until_whole()
    new = verdict["violations"][len(before["violations"]) :]
    return Report(
        [
            *figures,
            *_acknowledged(tally, found),
            *_journaled(before, verdict),
            Figure("astray", "VMs of which books and hosts disagree", len(astray), most=0),
            Figure("stuck", "VMs that nobody could start or stop any more", len(stuck), most=0),
            Figure("left", "VMs that could not be removed", len(own.left), most=0),
        ],
        [f"{each['kind']}: {each['what']}" for each in new] + [*astray, *_exceptions(tally, found)],
    )


@asynccontextmanager
async def _slow_hosts(target: Target) -> AsyncGenerator[None]:
    """Let calls take long enough for an incident to meet some under way."""
    await target.slow_down(_HOST_CALL_S, hosts=len(target.host_ports))
    try:
        yield
    finally:
        await target.heal()


async def _final(watch: Watch, tally: Tally, tell: Callable[[str], None]) -> dict[UUID, Record]:
    tell(f"{len(tally.acknowledged)} commands were acknowledged; waiting until all are final")
    said: set[int] = set()

    def waiting(count: int) -> None:
        if count not in said:
            said.add(count)
            tell(f"{count} are not final yet")

    return await watch.until_final(list(tally.acknowledged), _FINAL_S, waiting)


async def _astray(target: Target, client: Client, vms: Sequence[str]) -> list[str]:
    """Return of which VMs the books say something else than the hosts, for longer than a moment."""
    deadline = boottime() + _SETTLED_S
    while True:
        books = await books_of(client, vms)
        hosts = await target.running_vms()
        wrong = [
            f"VM {vm}: the books say {books[vm]}, the hosts {hosts.get(vm)}"
            for vm in vms
            if books[vm] != hosts.get(vm)
        ]
        if not wrong or boottime() > deadline:
            return wrong
        await asyncio.sleep(_POLL_S)


async def books_of(client: Client, vms: Sequence[str]) -> dict[str, int | None]:
    """Return on which host's port each VM runs by the API; None: it is down."""
    ports = {host.get("id"): int(host.findtext("port") or 0) for host in await client.get("/hosts")}
    books: dict[str, int | None] = {}
    for vm in vms:
        found = await client.get(f"/vms/{vm}")
        host = found.find("host")
        down = found.findtext("status") == "down"
        books[vm] = None if down or host is None else ports[host.get("id")]
    return books


def _lost(tally: Tally, found: Mapping[UUID, Record]) -> list[UUID]:
    return [id_ for id_ in tally.acknowledged if id_ not in found or not found[id_]["final"]]


def _acknowledged(tally: Tally, found: Mapping[UUID, Record]) -> list[Figure]:
    states = Counter(record["state"] for record in found.values())
    return [
        Figure("requests", "requests", tally.requests),
        Figure("requests_failed", "requests that failed", len(tally.failed)),
        Figure("silence_s", "longest time without an answer", tally.silence_s, "s"),
        Figure("acknowledged", "acknowledged commands", len(tally.acknowledged), least=1),
        Figure("succeeded", "of these succeeded", states["succeeded"]),
        Figure("failed", "of these failed", states["failed"]),
        Figure("unknown", "of these ended unknown", states["unknown"]),
        Figure("commands_lost", "of these lost", len(_lost(tally, found)), most=0),
    ]


def _journaled(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Figure]:
    started = after["counts"].get("vm_started", 0) - before["counts"].get("vm_started", 0)
    violations = len(after["violations"]) - len(before["violations"])
    return [
        Figure("vms_started", "VM starts in the hosts' journal", started, least=1),
        Figure("violations", "violations in the hosts' journal", violations, most=0),
    ]


def _exceptions(tally: Tally, found: Mapping[UUID, Record]) -> Iterator[str]:
    """Yield in sentences what did not go as its client wished."""
    for id_ in _lost(tally, found):
        yield f"lost: command {id_} ({tally.acknowledged[id_]})"
    for record in found.values():
        if record["state"] in ("failed", "unknown"):
            yield f"{record['state']}: {record['name']} {record['command_id']}: {record['error']}"
    for said, count in tally.refused.most_common(_SHOWN):
        yield f"refused {count} times: {said}"
    for said, count in Counter(heard.said for heard in tally.failed).most_common(_SHOWN):
        yield f"failed {count} times: {said}"
