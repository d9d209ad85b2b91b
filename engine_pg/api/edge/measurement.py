"""Counts and times each answer, by route and not by path: labels must stay few."""

from __future__ import annotations

from typing import Final

from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine_pg.api.metrics import Metrics
from engine_pg.clock import Clock, boottime

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})


class Measurement:
    """The outermost middleware: it sees every answer."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, clock: Clock = boottime) -> None:
        self._app = app
        self._metrics = metrics
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application and note how it answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_at, status = self._clock(), "none"

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            route = scope.get("route")
            path = route.path if isinstance(route, Route) else "none"
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.requests.add(method, path, status)
            self._metrics.latency.observe(path, self._clock() - started_at)
