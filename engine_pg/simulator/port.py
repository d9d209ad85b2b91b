"""A TCP port that stays ours while nobody listens on it: a host that is away comes back to it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from engine_pg.errors import Conflict

Accept = Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]


class Port:
    """A port, bound by the first `open` for good, and listening from `open` to `close`."""

    def __init__(self, address: str, number: int) -> None:
        self.address = address
        self.number = number
        self._held: socket.socket | None = None
        self._server: asyncio.Server | None = None

    @property
    def listening(self) -> bool:
        """Return whether connections are accepted."""
        return self._server is not None

    async def open(self, accept: Accept) -> None:
        """Accept connections."""
        if self._held is None:
            self._held = _bind(self.address, self.number)
            self.number = int(self._held.getsockname()[1])
        if self._server is None:
            listening = _bind(self.address, self.number)
            self._server = await asyncio.start_server(accept, sock=listening)

    def close(self) -> None:
        """Refuse connections; those that stand are left alone."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def release(self) -> None:
        """Give the port back."""
        self.close()
        if self._held is not None:
            self._held.close()
            self._held = None


def _bind(address: str, number: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((address, number))
    except OSError as error:
        bound.close()
        raise Conflict(f"Port {number} of {address} cannot be had: {error.strerror}.") from error
    return bound
