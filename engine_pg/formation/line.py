"""A line to a formation's monitor, by its address: what an engine asks, wherever the monitor is.

Does not promise an answer: without the monitor nothing fails over, and nothing else may suffer.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final, LiteralString

from engine_pg.db.urls import libpq_url
from engine_pg.errors import EngineError
from engine_pg.formation.asking import BOUND_S, Connection, Row, answer, closed, opened

_WHOM: Final = "the monitor"
_FOUND_GONE: Final[dict[str, str | int]] = {
    "connect_timeout": 2,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 4000,
}


class MonitorLine:
    """One connection to a monitor, opened when something is asked, and anew after it was lost."""

    def __init__(self, url: str, *, bound_s: float = BOUND_S) -> None:
        self._url = libpq_url(url)
        self._bound_s = bound_s
        self._connection: Connection | None = None

    async def ask(self, query: LiteralString) -> list[Row]:
        """Run one statement and return its rows; raises `DatabaseAway` when it is not there."""
        if self._connection is None:
            self._connection = await opened(
                _WHOM, self._url, bound_s=self._bound_s, more=_FOUND_GONE
            )
        try:
            return await answer(self._connection, query, self._bound_s)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Hang up."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await closed(connection)


async def asked(url: str, query: LiteralString) -> list[Row] | None:
    """Ask a monitor once; None: it does not answer."""
    line = MonitorLine(url)
    try:
        with suppress(EngineError):
            return await line.ask(query)
        return None
    finally:
        await line.close()
