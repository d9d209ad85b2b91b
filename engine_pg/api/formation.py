"""The formation that the database runs on: `/api/v1/formation`, in JSON, and its figures.

From the replica, and of commits that hang from this node's memory: both are there while the
database is away or acknowledges nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from engine_pg.api.asked import Filters
from engine_pg.api.call import age_of, reading_of
from engine_pg.api.metrics import Sample, exposition
from engine_pg.api.services import Services
from engine_pg.formation import shown
from engine_pg.formation.kept import FormationRow
from engine_pg.replica.formation import formation

GAUGES: Final[Mapping[str, tuple[str, str]]] = {
    "engine_pg_formation_monitor_up": ("", "Whether the monitor answers; absent without one."),
    "engine_pg_formation_synchronous": (
        "",
        "Whether each commit waits for a standby, so that it is on two servers.",
    ),
    "engine_pg_formation_nodes": ("state", "Nodes, by what their keepers report."),
    "engine_pg_formation_lag_bytes": ("node", "How far a standby is behind the primary."),
    "engine_pg_formation_age_seconds": ("", "How long ago the formation was looked at."),
    "engine_pg_formation_commits_hang": (
        "",
        "Whether this node sees commits wait for a standby that does not acknowledge.",
    ),
}

Samples = dict[str, list[tuple[tuple[str, ...], float]]]


async def read(request: Request) -> Response:
    """Answer with what is known of the formation; commits that hang are of this moment."""
    Filters(request)
    services: Services = request.app.state.services
    reading = reading_of(request)
    now = services.reads.replica.moment()
    document = shown.document(formation(reading.view), now, services.hang())
    return JSONResponse(document, headers=age_of(reading))


def figures(services: Services) -> Iterable[str]:
    """Yield the exposition of the formation, without asking the database."""
    replica = services.reads.replica
    row = None if replica.view is None else formation(replica.view)
    samples: Samples = {"commits_hang": [((), float(services.hang() is not None))]}
    if row is not None:
        age_s = (replica.moment() - row.looked_at).total_seconds()
        samples |= _of(row) | {"age_seconds": [((), max(0.0, age_s))]}
    for name, (label, about) in GAUGES.items():
        found = samples.get(name.removeprefix("engine_pg_formation_"), [])
        told = [Sample(name, ((label, key[0]),) if label else (), value) for key, value in found]
        yield from exposition("gauge", name, about, told)


def _of(row: FormationRow) -> Samples:
    nodes = row.node_states()
    states = Counter(node.state for node in nodes)
    found: Samples = {
        "synchronous": [((), float(row.synchronous))],
        "nodes": [((state,), count) for state, count in sorted(states.items())],
        "lag_bytes": [
            ((node.name,), node.lag_bytes) for node in nodes if node.lag_bytes is not None
        ],
    }
    if row.monitor != "none":
        found["monitor_up"] = [((), float(row.monitor == "up"))]
    return found
