"""What serves the application of a node."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Generator
from typing import Final

import uvicorn
from starlette.applications import Starlette
from typing_extensions import override

from engine_pg.settings import Settings

_PARTING_S: Final = 0.5
_POLL_S: Final = 0.02


class ApiServer(uvicorn.Server):
    """Uvicorn that leaves the signals to the node, and parts from its clients in order.

    A connection that is closed while it idles may have a request on its way, which then has no
    answer. So each client is told with its next answer to go elsewhere, and has a moment to ask.
    """

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Take no signal."""
        yield

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no new connection, answer once more on those there are, and close them."""
        for server in self.servers:
            server.close()
        self.server_state.default_headers.append((b"connection", b"close"))
        for _ in range(round(_PARTING_S / _POLL_S)):
            if not self.server_state.connections:
                break
            await asyncio.sleep(_POLL_S)
        await super().shutdown(sockets)


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
