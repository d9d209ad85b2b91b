"""What serves the application of a node."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

import uvicorn
from starlette.applications import Starlette

from engine_pg.settings import Settings


class ApiServer(uvicorn.Server):
    """Uvicorn that leaves the signals to the node."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Take no signal."""
        yield


def server_of(app: Starlette, settings: Settings) -> ApiServer:
    """Return a server, not started yet, where the settings want it."""
    config = uvicorn.Config(
        app,
        host=settings.listen_address,
        port=settings.listen_port,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=5,
    )
    return ApiServer(config)
