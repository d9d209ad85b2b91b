"""PostgreSQL for the nemesis: a primary, a synchronous standby, and all that befalls them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg.rows import dict_row

from engine_pg.clock import boottime
from engine_pg.db.embedded import EmbeddedPostgres
from engine_pg.db.embedded.processes import orphans
from engine_pg.db.embedded.site import Account, open_site
from engine_pg.errors import Unavailable

SETTINGS = {
    "max_connections": "150",
    "max_locks_per_transaction": "64",  # the default: exhaustion is to be reached
    "shared_buffers": "64MB",
    "wal_sender_timeout": "5s",
    "wal_receiver_timeout": "5s",
    "wal_receiver_status_interval": "1s",
    "wal_retrieve_retry_interval": "200ms",
}
SYNCHRONOUS = "alter system set synchronous_standby_names = '*'"
ALONE = "alter system set synchronous_standby_names = ''"
RELOAD = "select pg_reload_conf()"
REPLICA = "select sync_state from pg_stat_replication where state = 'streaming'"
PROMOTE = "select pg_promote(true, 30)"
PROBE = "select pg_logical_emit_message(true, 'chaos', 'it accepts writes')"
BOUND_S = 40.0
POLL_S = 0.02


class Server:
    """One PostgreSQL server, and what its processes can be made to suffer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.embedded = EmbeddedPostgres(folder, settings=SETTINGS)

    @property
    def site(self) -> Any:
        return open_site(self.folder, 0)

    @property
    def port(self) -> int:
        return self.embedded.port()

    def processes(self) -> list[int]:
        """Return the server's process ids, the postmaster's first."""
        postmaster = self.embedded.pid()
        return [*([postmaster] if postmaster else []), *orphans(self.site)]

    def signal(self, number: signal.Signals) -> None:
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    async def run(self, query: str) -> list[dict[str, Any]]:
        """Run a statement as the superuser."""
        connection = await psycopg.AsyncConnection.connect(
            self.embedded.url("postgres", "postgres"),
            autocommit=True,
            connect_timeout=3,
            row_factory=dict_row,
        )
        async with connection:
            cursor = await connection.execute(query)
            return await cursor.fetchall() if cursor.description else []

    async def start(self) -> None:
        await asyncio.to_thread(self.embedded.start)

    async def stop(self) -> None:
        self.signal(signal.SIGCONT)
        await asyncio.to_thread(self.embedded.stop, "immediate")

    async def until_writable(self, bound_s: float = BOUND_S) -> float:
        """Return when a commit was acknowledged."""
        deadline = boottime() + bound_s
        while True:
            try:
                async with asyncio.timeout(2.0):
                    await self.run(PROBE)
                return boottime()
            except (psycopg.Error, TimeoutError) as error:
                if boottime() > deadline:
                    raise Unavailable(f"no commit within {bound_s:g} s: {error}") from error
            await asyncio.sleep(POLL_S)


class Servers:
    """A primary and its synchronous standby; which is which changes with each failover."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.primary = Server(folder / "postgres-1")
        self.standby: Server | None = None
        self._made = 1

    async def start(self) -> None:
        await self.primary.start()

    async def add_standby(self, port: int) -> None:
        """Make a standby that follows through a port, and let commits wait for it."""
        self._made += 1
        standby = Server(self._folder / f"postgres-{self._made}")
        follow = await asyncio.to_thread(_copy, self.primary, standby, port)
        standby.embedded = EmbeddedPostgres(standby.folder, settings=SETTINGS | follow)
        await standby.start()
        await self._until_streaming()
        await self.primary.run(SYNCHRONOUS)
        await self.primary.run(RELOAD)
        await self.until_synchronous()
        self.standby = standby

    async def until_synchronous(self) -> None:
        await self._until_streaming("sync")

    async def promote(self) -> tuple[Server, float]:
        """Make the standby the primary; return the old one and when the new one took writes."""
        assert self.standby is not None
        old, self.primary, self.standby = self.primary, self.standby, None
        await self.primary.run(PROMOTE)
        await self.primary.run(ALONE)
        await self.primary.run(RELOAD)
        return old, await self.primary.until_writable()

    async def stop(self) -> None:
        for server in (self.standby, self.primary):
            if server is not None:
                await server.stop()

    async def _until_streaming(self, state: str = "") -> None:
        deadline = boottime() + BOUND_S
        while True:
            with suppress(psycopg.Error):
                states = [row["sync_state"] for row in await self.primary.run(REPLICA)]
                if any(state in found for found in states):
                    return
            if boottime() > deadline:
                raise Unavailable("the standby does not follow")
            await asyncio.sleep(POLL_S)


def _copy(primary: Server, standby: Server, port: int) -> dict[str, str]:
    """Copy the primary's data; return the settings that let the copy follow through the port."""
    source, site = primary.site, standby.site
    memory = replace(site.memory, passwords=source.memory.passwords)
    note = Account(os.geteuid(), os.getegid(), borrowed=False)
    note.write(standby.folder / "server.json", json.dumps(asdict(memory)))
    word = source.memory.passwords["postgres"]
    programs = standby.embedded._programs(site)
    site.account.own_folder(site.data)
    base = urlsplit(primary.embedded.url("postgres", "postgres"))
    result = site.account.run(
        programs.path("pg_basebackup"),
        *("--dbname", base.geturl(), "--pgdata", site.data, "--checkpoint", "fast"),
        *("--wal-method", "stream", "--no-sync"),
    )
    if result.returncode:
        raise Unavailable(f"pg_basebackup failed: {result.stdout}")
    site.account.write(site.data / "standby.signal", "")
    follow = f"host=127.0.0.1 port={port} user=postgres password={word} application_name=standby"
    return {"primary_conninfo": follow}
