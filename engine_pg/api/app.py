"""The web application: every path at one glance, and what each request passes through.

Measurement ▶ Correlation ▶ Hardening ▶ Faults ▶ Limits ▶ Paths ▶ gzip ▶ Authentication ▶ Once ▶
route
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine_pg.api import cluster, commands, formation, health, schedules, settings, sso, status
from engine_pg.api.auth import Authentication
from engine_pg.api.changes import endpoint as changes
from engine_pg.api.edge.correlation import Correlation
from engine_pg.api.edge.hardening import Hardening
from engine_pg.api.edge.limits import Limits
from engine_pg.api.edge.measurement import Measurement
from engine_pg.api.edge.paths import API, Paths
from engine_pg.api.faults import Faults, http_error
from engine_pg.api.once import Once
from engine_pg.api.resources import events, jobs, root, singles, templates, users
from engine_pg.api.resources import hosts as host_actions
from engine_pg.api.resources import vms as vm_actions
from engine_pg.api.resources.clusters import CLUSTERS
from engine_pg.api.resources.data_centers import DATA_CENTERS
from engine_pg.api.resources.entities import Entities
from engine_pg.api.resources.hosts import HOSTS
from engine_pg.api.resources.vms import VMS
from engine_pg.api.services import Services
from engine_pg.api.types.empty import TOP

Endpoint = Callable[[Request], Awaitable[Response]]


def on(path: str, **endpoints: Endpoint) -> Route:
    """Return the route of a path, by method."""

    async def dispatched(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        return await endpoints[method](request)

    return Route(path, dispatched, methods=list(endpoints))


def api(path: str, **endpoints: Endpoint) -> Route:
    """Return the route of a path below the API's."""
    return on(f"{API}{path}", **endpoints)


data_centers: Final = Entities(DATA_CENTERS)
clusters: Final = Entities(CLUSTERS)
hosts: Final = Entities(HOSTS)
vms: Final = Entities(VMS)

ROUTES: Final = (
    on("/healthz", GET=health.healthz),
    on("/readyz", GET=health.readyz),
    on("/metrics", GET=health.metrics),
    on("/api/v1/status", GET=status.read),
    on("/api/v1/members", GET=cluster.members),
    on("/api/v1/leaders", GET=cluster.leaders),
    on("/api/v1/locks", GET=cluster.locks),
    on("/api/v1/locks/break", POST=cluster.break_),
    on("/api/v1/waiters", GET=cluster.waiters),
    on("/api/v1/waitgraph", GET=cluster.wait_graph),
    on("/api/v1/formation", GET=formation.read),
    on("/api/v1/commands", GET=commands.listed),
    on("/api/v1/commands/{id}", GET=commands.read),
    on("/api/v1/commands/{id}/cancel", POST=commands.cancel),
    on("/api/v1/commands/{id}/retry", POST=commands.retry),
    on("/api/v1/changes", GET=changes.stream),
    on("/api/v1/settings", GET=settings.listed),
    on("/api/v1/settings/history", GET=settings.history),
    on("/api/v1/settings/{name}", GET=settings.read, PUT=settings.assign, DELETE=settings.reset),
    on("/api/v1/schedules", GET=schedules.listed),
    on(
        "/api/v1/schedules/{name}",
        GET=schedules.read,
        PUT=schedules.assign,
        DELETE=schedules.remove,
    ),
    on("/api/v1/schedules/{name}/pause", POST=schedules.pause),
    on("/api/v1/schedules/{name}/resume", POST=schedules.resume),
    on("/api/v1/schedules/{name}/trigger", POST=schedules.trigger),
    on("/api/v1/schedules/{name}/runs", GET=schedules.history),
    on("/ovirt-engine/sso/oauth/token", POST=sso.token),
    on("/ovirt-engine/services/sso-logout", POST=sso.logout),
    api("", GET=root.read),
    api("/datacenters", GET=data_centers.listed, POST=data_centers.add),
    api(
        "/datacenters/{id}",
        GET=data_centers.read,
        PUT=data_centers.update,
        DELETE=data_centers.remove,
    ),
    api("/datacenters/{id}/{part}", GET=data_centers.part),
    api("/datacenters/{id}/{part}/{part_id}", GET=data_centers.part_member),
    api("/clusters", GET=clusters.listed, POST=clusters.add),
    api("/clusters/{id}", GET=clusters.read, PUT=clusters.update, DELETE=clusters.remove),
    api("/clusters/{id}/{part}", GET=clusters.part),
    api("/clusters/{id}/{part}/{part_id}", GET=clusters.part_member),
    api("/hosts", GET=hosts.listed, POST=hosts.add),
    api("/hosts/{id}", GET=hosts.read, PUT=hosts.update, DELETE=hosts.remove),
    api("/hosts/{id}/activate", POST=host_actions.activate),
    api("/hosts/{id}/deactivate", POST=host_actions.deactivate),
    api("/hosts/{id}/{part}", GET=hosts.part),
    api("/hosts/{id}/{part}/{part_id}", GET=hosts.part_member),
    api("/vms", GET=vms.listed, POST=vms.add),
    api("/vms/{id}", GET=vms.read, PUT=vms.update, DELETE=vms.remove),
    api("/vms/{id}/start", POST=vm_actions.start),
    api("/vms/{id}/stop", POST=vm_actions.stop),
    api("/vms/{id}/shutdown", POST=vm_actions.shutdown),
    api("/vms/{id}/migrate", POST=vm_actions.migrate),
    api("/vms/{id}/{part}", GET=vms.part),
    api("/vms/{id}/{part}/{part_id}", GET=vms.part_member),
    api("/templates", GET=templates.listed),
    api("/templates/{id}", GET=templates.read),
    api("/templates/{id}/{part}", GET=templates.part),
    api("/jobs", GET=jobs.listed),
    api("/jobs/{id}", GET=jobs.read),
    api("/jobs/{id}/steps", GET=jobs.steps),
    api("/jobs/{id}/steps/{step_id}", GET=jobs.read_step),
    api("/events", GET=events.listed),
    api("/events/{id}", GET=events.read),
    api("/users", GET=users.listed),
    api("/users/{id}", GET=users.read),
    api("/macpools", GET=singles.mac_pools),
    api("/macpools/{id}", GET=singles.mac_pool),
    api("/schedulingpolicies", GET=singles.scheduling_policies),
    api("/schedulingpolicies/{id}", GET=singles.scheduling_policy),
    *(api(f"/{path}", GET=singles.none(element)) for path, element in TOP.items()),
)


def create_app(services: Services) -> Starlette:
    """Return the application of one node."""
    live = services.settings
    app = Starlette(
        routes=ROUTES,
        exception_handlers={HTTPException: http_error},
        middleware=[
            Middleware(Measurement, metrics=services.metrics),
            Middleware(Correlation),
            Middleware(Hardening),
            Middleware(Faults),
            Middleware(Limits, body_limit_bytes=lambda: live.now.request_body_limit_bytes),
            Middleware(Paths),
            Middleware(GZipMiddleware, minimum_size=1000, compresslevel=5),
            Middleware(Authentication, services=services),
            Middleware(Once, services=services),
        ],
    )
    app.router.redirect_slashes = False
    app.state.services = services
    return app
