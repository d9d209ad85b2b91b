"""For load balancers and Prometheus: lives, is ready, counts."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from engine_pg.api.metrics import Sample, exposition
from engine_pg.api.services import Services
from engine_pg.db.tx import Record
from engine_pg.errors import EngineError

MEASURED: Final = """
select 'engine_members' as name, state as label, count(*)::float8 as value
  from member where state = 'live' group by state
union all select 'engine_leaders', name, (member_id is not null)::integer from leader
union all select 'engine_locks', kind, count(*) from lock_grant group by kind
union all select 'engine_commands', state, count(*) from command
           where ended_at is null or ended_at > now() - interval '1 hour' group by state
union all select 'engine_hosts', status, count(*) from host group by status
union all select 'engine_vms', status, count(*) from vm group by status
"""
_GAUGES: Final = {
    "engine_members": ("state", "Live members of the cluster."),
    "engine_leaders": ("name", "Whether a leadership is held (1) or vacant (0)."),
    "engine_locks": ("kind", "Locks held."),
    "engine_commands": ("state", "Commands that are open or ended within the last hour."),
    "engine_hosts": ("status", "Hosts."),
    "engine_vms": ("status", "VMs."),
}
_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"


async def healthz(request: Request) -> Response:  # noqa: ARG001  # lives, whoever asks
    """Answer: the process lives."""
    return JSONResponse({"status": "alive"})


async def readyz(request: Request) -> Response:
    """Answer whether this node may be sent requests, and why not."""
    services: Services = request.app.state.services
    reasons = list(services.ready())
    body = {"status": "not ready" if reasons else "ready", "reasons": reasons}
    return JSONResponse(body, 503 if reasons else 200)


def _gauge(name: str, records: list[Record]) -> list[str]:
    label, about = _GAUGES[name]
    samples = [
        Sample(name, ((label, record["label"]),), record["value"])
        for record in records
        if record["name"] == name
    ]
    return list(exposition("gauge", name, about, samples))


async def metrics(request: Request) -> Response:
    """Answer with everything that is counted, as Prometheus reads it."""
    services: Services = request.app.state.services
    lines = list(services.metrics.lines())
    try:
        async with services.db.read() as tx:
            records = await tx.all(MEASURED)
    except EngineError:
        answers = 0
    else:
        answers = 1
        for name in _GAUGES:
            lines += _gauge(name, records)
    sample = Sample("engine_database_answers", (), answers)
    lines += exposition("gauge", sample.name, "Whether the database answers.", [sample])
    return PlainTextResponse("\n".join(lines) + "\n", media_type=_TEXT)
