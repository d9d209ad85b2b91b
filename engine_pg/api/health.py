"""For load balancers and Prometheus: lives, is ready, counts."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from engine_pg.api import formation, measured
from engine_pg.api.metrics import Sample, exposition
from engine_pg.api.replicated import of_replica
from engine_pg.api.services import Services
from engine_pg.cluster import looks
from engine_pg.errors import EngineError, Invalid

_LEAVING: Final = {"404": 404, "503": 503}
_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"


async def healthz(request: Request) -> Response:  # noqa: ARG001  # lives, whoever asks
    """Answer: the process lives."""
    return JSONResponse({"status": "alive"})


async def readyz(request: Request) -> Response:
    """Answer whether this node may be sent requests, and why not.

    A degraded one still answers reads, and says how old they are. With `leaving=404` one that stops
    or drains answers 404: what it was sent before is still answered.
    """
    services: Services = request.app.state.services
    leaving = request.query_params.get("leaving", "503")
    if leaving not in _LEAVING:
        raise Invalid(f"The parameter leaving should be {' or '.join(_LEAVING)}")
    reasons = list(services.ready())
    degraded = list(services.degraded())
    status = "not ready" if reasons else "degraded" if degraded else "ready"
    code = 200 if not reasons else _LEAVING[leaving] if services.leaving() else 503
    return JSONResponse({"status": status, "reasons": reasons + degraded}, code)


async def metrics(request: Request) -> Response:
    """Answer with everything that is counted, as Prometheus reads it."""
    services: Services = request.app.state.services
    own = measured.of_node(services.measures, services.standing(), streams=services.tail.streams)
    lines = [*services.metrics.lines(), *own]
    lines += of_replica(services.reads.replica)
    lines += formation.figures(services)
    try:
        async with asyncio.timeout(services.settings.now.read_wait_s), services.db.read() as tx:
            records = await tx.all(measured.CLUSTER)
            table = await looks.lock_table(tx)
    except (TimeoutError, EngineError):  # who asks would take silence for a dead node
        answers = 0
    else:
        answers = 1
        for name, value in (("used", table.used), ("capacity", table.capacity)):
            records.append({"name": f"engine_lock_table_{name}", "value": value})
        lines += measured.of_cluster(records)
    sample = Sample("engine_database_answers", (), answers)
    lines += exposition("gauge", sample.name, "Whether the database answers.", [sample])
    return PlainTextResponse("\n".join(lines) + "\n", media_type=_TEXT)
