"""The live view: nodes, leaders, locks, hosts, VMs, commands and the last events at one glance.

Its `summary` is what `engine-pg status` shows; the rest is what a screen has room for. What the
replica holds comes from there; locks and figures that change all the time are null while the
database is away.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from engine_pg.api.call import age_of, reading_of
from engine_pg.api.figures import MembersFigures, ask, members_figures
from engine_pg.api.services import Services
from engine_pg.api.wire.xml import date_text
from engine_pg.cluster.looks import Member
from engine_pg.commands import shown
from engine_pg.commands.replicated import open_commands
from engine_pg.commands.rows import CommandView
from engine_pg.db.tx import Record, Tx
from engine_pg.inventory.rows import Event, Host, Vm
from engine_pg.replica import roster
from engine_pg.replica.view import View

LOCKS: Final = """
select g.kind || ':' || g.id as key, g.mode, g.token, m.node, g.reason,
       c.description as command,
       extract(epoch from clock_timestamp() - g.granted_at)::float8 as age_s
  from lock_grant g left join member m using (member_id) left join command c using (command_id)
 order by g.granted_at desc limit 200
"""
COMMANDS: Final = """
select state as key, count(*) as value from command
 where ended_at is null or ended_at > clock_timestamp() - interval '1 hour' group by state
"""
_HOSTS: Final = 500
_EVENTS: Final = 20
_LATELY: Final = timedelta(hours=1)
_BREATH: Final = 1000


@dataclass(frozen=True, slots=True)
class _Asked:
    summary: shown.Document
    members: MembersFigures
    locks: list[Record]
    commands: dict[str, int]


async def _asked(tx: Tx) -> _Asked:
    return _Asked(
        await shown.status(tx),
        await members_figures(tx),
        await tx.all(LOCKS),
        {record["key"]: record["value"] for record in await tx.all(COMMANDS)},
    )


async def read(request: Request) -> Response:
    """Answer with the live view."""
    services: Services = request.app.state.services
    reading = reading_of(request)
    view, now = reading.view, services.reads.replica.moment()
    asked = await ask(services, reading, _asked)
    members = roster.members(view, now, {} if asked is None else asked.members.vitals)
    leaders = roster.leaders(view, now)
    running = open_commands(view) if asked is None else asked.members.commands
    document: dict[str, Any] = {
        "stale_s": reading.stale_s,
        "summary": shown.status_without_database(members, leaders, view.epoch_id)
        if asked is None
        else asked.summary,
        "nodes": [_node(each, running.get(each.member_id, 0)) for each in members],
        "leaders": [{"name": each.name, "node": each.node, "term": each.term} for each in leaders],
        "locks": None if asked is None else asked.locks,
        "hosts": [_host(view, each) for each in islice(view.of(Host), _HOSTS)],
        "vms": await _vms(view),
        "commands": _commands(view, now) if asked is None else asked.commands,
        "events": [_event(each) for each in islice(view.of(Event), _EVENTS)],
    }
    return JSONResponse(document, headers=age_of(reading))


def _node(member: Member, commands: int) -> shown.Document:
    state = "draining" if member.draining and member.state != "ended" else member.state
    return {
        "node": member.node,
        "member_id": str(member.member_id),
        "address": member.address,
        "state": "live" if state == "paused" else state,
        "ttl_s": member.ttl_s,
        "age_s": member.age_s,
        "leaderships": member.leaderships,
        "commands": commands,
    }


def _host(view: View, host: Host) -> shown.Document:
    return {
        "id": str(host.host_id),
        "name": host.name,
        "status": host.status,
        "address": host.address,
        "vms": view.of(Vm).count("host_id", host.host_id),
    }


async def _vms(view: View) -> Counter[str]:
    counts: Counter[str] = Counter()
    for number, vm in enumerate(view.of(Vm), 1):
        counts[vm.status] += 1
        if number % _BREATH == 0:
            await asyncio.sleep(0)
    return counts


def _commands(view: View, now: datetime) -> Counter[str]:
    rows = view.of(CommandView)
    return Counter(
        row.state for row in rows if row.ended_at is None or row.ended_at > now - _LATELY
    )


def _event(event: Event) -> shown.Document:
    return {
        "at": date_text(event.at),
        "severity": event.severity,
        "description": event.description,
    }
