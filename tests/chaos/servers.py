"""A pair of PostgreSQL servers as the nemesis sees them: without blocking, and with a clock."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Literal

import psycopg
from replication import Pair, Server

from engine_pg.clock import boottime
from engine_pg.errors import DatabaseAway, Unavailable

SETTINGS = {
    "fsync": "on",
    "track_commit_timestamp": "on",  # tells what was committed after its member's end
    "max_connections": "150",
    "max_locks_per_transaction": "64",  # the default: exhaustion is to be reached
    "shared_buffers": "64MB",
    "wal_sender_timeout": "5s",
    "wal_receiver_timeout": "5s",
}
PROBE = "select pg_logical_emit_message(true, 'chaos', 'it accepts writes')"
BOUND_S = 40.0
POLL_S = 0.02

Role = Literal["primary", "standby"]


class Servers:
    """A primary and its synchronous standby; which is which changes with each failover."""

    def __init__(self, folder: Path) -> None:
        self.homes = (folder / "first", folder / "second")  # as a pair names them
        self._pair = Pair(folder)
        for server in self._pair.servers:
            server.settings.update(SETTINGS)

    @property
    def primary(self) -> Server:
        return self._pair.primary

    @property
    def port(self) -> int:
        """The primary's own port."""
        return self.primary.embedded.port()

    def home(self, role: Role) -> Path:
        """Return the folder of a server."""
        return self.homes[self._pair.servers.index(getattr(self._pair, role))]

    def runs(self, role: Role) -> bool:
        """Say whether a server runs."""
        return getattr(self._pair, role).embedded.is_running()

    def url(self, database: str = "engine", *, administrator: bool = False) -> str:
        """Return the primary's own address."""
        return self.primary.embedded.url(database, "postgres" if administrator else "engine")

    async def start(self) -> None:
        """Start both, migrated and streaming."""
        await asyncio.to_thread(self._pair.start)

    async def stop(self) -> None:
        """Stop both, and keep what they logged: their disks may not outlive the run."""
        await asyncio.to_thread(self._pair.stop)
        for home in self.homes:
            for log in (home / "log").glob("*.log"):
                shutil.copy(log, home.parent / "logs" / f"{home.name}-{log.name}")

    async def rejoin(self) -> None:
        """Make a pair again of whatever is left."""
        await asyncio.to_thread(self._pair.rejoin)

    async def recovered(self) -> bool:
        """Make a pair again; False: the primary hung in its recovery, and its operator killed it.

        PostgreSQL 18.4 does when its disk was full at the end of a recovery: it neither gives up
        nor goes on when there is room.
        """
        try:
            await self.rejoin()
        except DatabaseAway:
            await asyncio.to_thread(self.primary.kill)
            await self.rejoin()
            return False
        return True

    async def stop_primary(self) -> None:
        """Crash the primary."""
        await asyncio.to_thread(self.primary.embedded.stop, "immediate")

    async def restart_primary(self) -> None:
        """Crash the primary and start it again."""
        await asyncio.to_thread(self.primary.embedded.restart_immediate)

    async def promote(self) -> float:
        """Make the standby the primary; return when it took writes."""
        await asyncio.to_thread(self._pair.promote)
        return await self.until_writable()

    async def until_writable(self, bound_s: float = BOUND_S) -> float:
        """Return when a commit was acknowledged, by the standby too where there is one."""
        deadline = boottime() + bound_s
        while True:
            try:
                async with asyncio.timeout(2.0):
                    connection = await self.session()
                    async with connection:
                        await connection.execute(PROBE)
                return boottime()
            except (psycopg.Error, TimeoutError) as error:
                if boottime() > deadline:
                    raise Unavailable(f"no commit within {bound_s:g} s: {error}") from error
            await asyncio.sleep(POLL_S)

    async def session(self, database: str = "engine") -> psycopg.AsyncConnection:
        """Open a session of the administrator on the primary."""
        url = self.url(database, administrator=True)
        return await psycopg.AsyncConnection.connect(url, autocommit=True, connect_timeout=3)
