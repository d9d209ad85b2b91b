"""The live view: nodes, leaders, locks, hosts, VMs, commands and the last events at one glance.

Its `summary` is what `engine-pg status` shows; the rest is what a screen has room for.
"""

from __future__ import annotations

from typing import Any, Final, LiteralString

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from engine_pg.api.services import Services
from engine_pg.api.wire.xml import date_text
from engine_pg.commands import shown
from engine_pg.db.tx import Tx

NODES: Final = """
select m.node, m.member_id::text, m.address,
       case when m.state = 'ended' then 'ended' when m.draining then 'draining'
            else m.state end as state,
       extract(epoch from m.ttl)::float8 as ttl_s,
       extract(epoch from clock_timestamp() - m.renewed_at)::float8 as age_s,
       (select count(*) from leader l where l.member_id = m.member_id) as leaderships,
       (select count(*) from command c where c.member_id = m.member_id and c.ended_at is null)
         as commands
  from member m
 where m.state = 'live' or m.ended_at > clock_timestamp() - interval '1 min'
 order by m.node, m.joined_at
"""
LEADERS: Final = """
select l.name, m.node, l.term from leader l left join member m using (member_id) order by l.name
"""
LOCKS: Final = """
select g.kind || ':' || g.id as key, g.mode, g.token, m.node, g.reason,
       c.description as command,
       extract(epoch from clock_timestamp() - g.granted_at)::float8 as age_s
  from lock_grant g left join member m using (member_id) left join command c using (command_id)
 order by g.granted_at desc limit 200
"""
HOSTS: Final = """
select h.host_id::text as id, h.name, h.status, h.address,
       (select count(*) from vm v where v.host_id = h.host_id) as vms
  from host h order by lower(h.name) limit 500
"""
VMS: Final = "select status as key, count(*) as value from vm group by status"
COMMANDS: Final = """
select state as key, count(*) as value from command
 where ended_at is null or ended_at > clock_timestamp() - interval '1 hour' group by state
"""
EVENTS: Final = """
select at, severity, description from event order by event_id desc limit 20
"""


async def _counts(tx: Tx, query: LiteralString) -> dict[str, int]:
    return {record["key"]: record["value"] for record in await tx.all(query)}


async def read(request: Request) -> Response:
    """Answer with the live view."""
    services: Services = request.app.state.services
    async with services.db.read() as tx:
        view: dict[str, Any] = {
            "summary": await shown.status(tx),
            "nodes": await tx.all(NODES),
            "leaders": await tx.all(LEADERS),
            "locks": await tx.all(LOCKS),
            "hosts": await tx.all(HOSTS),
            "vms": await _counts(tx, VMS),
            "commands": await _counts(tx, COMMANDS),
            "events": await tx.all(EVENTS),
        }
    for event in view["events"]:
        event["at"] = date_text(event["at"])
    return JSONResponse(view)
