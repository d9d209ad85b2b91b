"""Two PostgreSQL servers, a primary and its synchronous standby, and everything that befalls them.

No pytest here: the chaos runs use it as well. Clients reach a server through its `link`, its
standby through its `feed`; `Server.ask` goes around both.

    pair = Pair(folder); pair.start()      two servers, migrated, streaming; commits are on both
    pair.primary.feed.freeze()             no commit is acknowledged any more; nobody is told
    pair.promote(); pair.rejoin()          a failover; then a new standby for the new primary
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, LiteralString
from urllib.parse import urlsplit

import psycopg
from links import Link
from psycopg import sql

from engine_pg.clock import boottime
from engine_pg.db.embedded import EmbeddedPostgres
from engine_pg.db.embedded.configuration import configuration
from engine_pg.db.embedded.processes import orphans
from engine_pg.db.embedded.programs import programs_for
from engine_pg.db.embedded.site import open_site
from engine_pg.db.migrate import upgrade

QUICK = {
    "fsync": "off",
    "shared_buffers": "16MB",
    "max_connections": "100",
    "max_locks_per_transaction": "512",
    "wal_retrieve_retry_interval": "100ms",
    "wal_receiver_status_interval": "1s",
    "wal_keep_size": "256MB",
    "restart_after_crash": "on",
    "hot_standby": "on",
}
STREAMS = """
select 1 from pg_stat_replication where sync_state = 'sync' and state = 'streaming'
"""
_BOUND_S = 30.0
# A sequence logs 32 numbers at a time. A clone inherits those that its template has logged and
# not yet drawn, but not the log: after an immediate restart it would draw the same ones again.
SETTLE_SEQUENCES = """
select setval(format('%I.%I', schemaname, sequencename)::regclass,
              coalesce(last_value, start_value), last_value is not null)
  from pg_sequences
"""


def until(check: Callable[[], object], bound_s: float = _BOUND_S) -> None:
    """Wait until a check returns something true; a server that cannot answer yet has not."""
    deadline = boottime() + bound_s
    while True:
        with suppress(psycopg.Error):
            if check():
                return
        if boottime() > deadline:
            raise TimeoutError("it did not happen in time")
        time.sleep(0.02)


class Server:
    """One PostgreSQL server and the links through which others reach it."""

    def __init__(
        self, folder: Path, *, binaries: Path | None = None, like: Server | None = None
    ) -> None:
        self.settings = dict(QUICK)
        self.embedded = EmbeddedPostgres(folder, binaries=binaries, settings=self.settings)
        self._binaries = binaries
        self._site = open_site(folder, 0)
        if like is not None:  # a standby has its primary's roles
            self._site.memory.passwords.update(like._site.memory.passwords)
            (folder / "server.json").write_text(json.dumps(asdict(self._site.memory)))
        self.link = Link(self._site.memory.port)
        self.feed = Link(self._site.memory.port)

    @property
    def direct_url(self) -> str:
        """The server's address around the link, for its administrator."""
        return self.embedded.url("engine", "postgres")

    @property
    def timeline(self) -> int:
        """The timeline that the server, a primary, writes."""
        walfile = self.ask("select pg_walfile_name(pg_current_wal_insert_lsn()) as name")
        return int(walfile[0][0][:8], 16)

    def ask(self, query: LiteralString | sql.Composed, *params: object) -> list[tuple[Any, ...]]:
        """Run one statement as administrator, past the link; commits wait for no standby."""
        options = "-c synchronous_commit=local"
        with psycopg.connect(
            self.direct_url, autocommit=True, connect_timeout=3, options=options
        ) as admin:
            cursor = admin.execute(query, params)
            return cursor.fetchall() if cursor.description else []

    def configure(self, **settings: str) -> None:
        """Change settings for good; a running server follows at once."""
        self.settings.update(settings)
        if self._site.data.exists():
            text = configuration(self._site, self.settings)
            self._site.account.write(self._site.data / "postgresql.conf", text)
        if self.embedded.is_running():
            self.ask("select pg_reload_conf()")

    def copy_of(self, primary: Server) -> None:
        """Become a copy of a running primary, made by pg_basebackup; not started yet."""
        site, account = self._site, self._site.account
        site.prepare()
        shutil.rmtree(site.data, ignore_errors=True)
        account.own_folder(site.data)
        programs = programs_for(account, self._binaries, site.home / "programs")
        result = account.run(
            programs.path("pg_basebackup"),
            *("--dbname", primary.embedded.url("postgres", "postgres")),
            *("--pgdata", site.data, "--checkpoint", "fast", "--no-sync", "--wal-method", "stream"),
        )
        if result.returncode:
            raise RuntimeError(f"pg_basebackup: {result.stdout}")
        account.write(site.data / "standby.signal", "")

    def freeze(self, *names: str) -> None:
        """Stop the server's processes as a hung machine does; named ones only, e.g. `walsender`."""
        self._signal(signal.SIGSTOP, names)

    def thaw(self) -> None:
        """Let frozen processes go on."""
        self._signal(signal.SIGCONT, ())

    def kill(self) -> None:
        """Kill every process of the server at once, as a loss of power does."""
        self._signal(signal.SIGKILL, ())
        until(lambda: not orphans(self._site) and not self.embedded.is_running())

    def crash(self) -> None:
        """Kill one backend: the server ends all others, loses its shared memory and recovers."""
        with psycopg.connect(self.direct_url, autocommit=True) as victim:
            os.kill(victim.info.backend_pid, signal.SIGKILL)
            with suppress(psycopg.Error):
                while True:
                    victim.execute("select pg_sleep(0.01)")

    def _signal(self, number: signal.Signals, names: tuple[str, ...]) -> None:
        pids = orphans(self._site)
        if names:
            pids = [pid for pid in pids if any(name in title_of(pid) for name in names)]
        elif (postmaster := self.embedded.pid()) is not None:
            pids.insert(0, postmaster)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def title_of(pid: int) -> str:
    """Return the title of a process, empty when it ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    return ""


class Pair:
    """A primary and its standby, without which no commit of the primary is acknowledged.

    `primary` and `standby` change places with every promotion.
    """

    def __init__(self, folder: Path, *, binaries: Path | None = None) -> None:
        self.primary = Server(folder / "first", binaries=binaries)
        self.standby = Server(folder / "second", binaries=binaries, like=self.primary)
        self.servers = (self.primary, self.standby)
        self._parted = True

    def url(self, database: str = "engine") -> str:
        """Return the address that names both servers, always in the same order."""
        return self.url_of(*(server.link for server in self.servers), database=database)

    def url_of(
        self, *links: Link, database: str = "engine", attrs: str | None = "read-write"
    ) -> str:
        """Return the address that names these links in this order."""
        word = urlsplit(self.primary.embedded.url()).password
        hosts = ",".join(f"127.0.0.1:{link.port}" for link in links)
        tail = f"?target_session_attrs={attrs}" if attrs else ""
        return f"postgresql://engine:{word}@{hosts}/{database}{tail}"

    def start(self) -> None:
        """Start both, migrated and streaming."""
        self.primary.embedded.start()
        upgrade(self.primary.embedded.url())
        self.rejoin()

    def promote(self) -> None:
        """Make the standby the primary, whatever became of the old one; returns when it writes."""
        self._parted = True
        self.standby.ask("select pg_promote(true, 20)")
        self.primary, self.standby = self.standby, self.primary

    def rejoin(self) -> None:
        """Bring a pair back that went through anything: links, both servers, streaming."""
        for server in self.servers:
            server.link.heal()
            server.feed.heal()
            server.thaw()
        self.primary.embedded.start()
        if self._parted:
            self.primary.configure(synchronous_standby_names="")
            self.standby.embedded.stop("immediate")
            self._attach()
        self.standby.embedded.start()
        self.primary.configure(synchronous_standby_names="standby")
        until(self._streams)
        self._parted = False

    def wait_until_applied(self) -> None:
        """Wait until whoever reads on the standby sees all that the primary has committed."""
        ((written,),) = self.primary.ask("select pg_current_wal_insert_lsn()::text")
        applied = "select pg_last_wal_replay_lsn() >= %s::pg_lsn"
        until(lambda: self.standby.ask(applied, written)[0][0])

    def stop(self) -> None:
        """Stop both servers and their links."""
        for server in self.servers:
            server.thaw()
            server.embedded.stop("immediate")
            server.link.close()
            server.feed.close()

    def _attach(self) -> None:
        """Make the standby a fresh copy of the primary."""
        account = urlsplit(self.primary.direct_url)
        self.standby.configure(
            synchronous_standby_names="",
            primary_conninfo=f"host=127.0.0.1 port={self.primary.feed.port} user=postgres"
            f" password={account.password} application_name=standby",
        )
        self.standby.copy_of(self.primary)

    def _streams(self) -> bool:
        return bool(self.primary.ask(STREAMS))
