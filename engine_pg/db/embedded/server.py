"""The life of an embedded server: laid out once, started, adopted, stopped."""

from __future__ import annotations

import shutil
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import quote

import psycopg
from psycopg import sql

from engine_pg.clock import boottime
from engine_pg.db.embedded.configuration import configuration
from engine_pg.db.embedded.processes import orphans, postmaster_pid
from engine_pg.db.embedded.programs import Programs, programs_for
from engine_pg.db.embedded.site import Site, explained, open_site, port_is_free
from engine_pg.errors import Conflict, DatabaseAway, Invalid

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_BOUND_S: Final = 30
_PORT_BOUND_S: Final = 2
_POLL_S: Final = 0.05
_TAIL_LINES: Final = 15
_ROOM_BYTES: Final = 1024**2  # with less, it cannot even say what it lacks
_LOCALES: Final = ("C.UTF-8", "C")  # the first knows all letters' cases, the second is everywhere


class EmbeddedPostgres:
    """One PostgreSQL server in one folder, with a role and a database named `engine`."""

    def __init__(
        self,
        folder: Path,
        *,
        port: int = 0,
        binaries: Path | None = None,
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._folder = folder.absolute()
        self._port = port
        self._binaries = binaries
        self._settings = settings

    def start(self) -> None:
        """Start the server, or adopt the one that runs, and see that it has role and database."""
        site = open_site(self._folder, self._port)
        deadline = boottime() + _BOUND_S
        try:
            while not self._serves(site, deadline):
                time.sleep(_POLL_S)
        except OSError as problem:
            raise Invalid(explained(problem, site.home)) from problem

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop the server: `fast` ends sessions in order, `immediate` is a crash on purpose."""
        if not self.is_running():
            return
        site = self._site()
        asked = self._control(site, "stop", "-m", mode)
        if asked and mode == "fast":
            asked = self._control(site, "stop", "-m", "immediate")
        if asked and postmaster_pid(site) is not None:
            raise DatabaseAway(f"the server in {self._folder} does not stop: {asked}")

    def restart_immediate(self) -> None:
        """Crash the server and start it again: a new epoch, recovered from the log."""
        self.stop("immediate")
        self.start()

    def is_running(self) -> bool:
        """Say whether the server's main process lives."""
        return self.pid() is not None

    def pid(self) -> int | None:
        """Return the process id of the server's main process, None when it does not run."""
        return postmaster_pid(self._site()) if self._was_started() else None

    def port(self) -> int:
        """Return the TCP port on 127.0.0.1."""
        return self._site().memory.port

    def sockets(self) -> Path:
        """Return the folder of the Unix socket."""
        return self._site().sockets

    def url(self, database: str = "engine", user: Literal["engine", "postgres"] = "engine") -> str:
        """Return the address to connect to, password included."""
        memory = self._site().memory
        word = quote(memory.passwords[user], safe="")
        return f"postgresql://{user}:{word}@127.0.0.1:{memory.port}/{quote(database, safe='')}"

    def _was_started(self) -> bool:
        return (self._folder / "server.json").exists()

    def _site(self) -> Site:
        if not self._was_started():
            raise Conflict(f"no server was ever started in {self._folder}")
        return open_site(self._folder, self._port)

    def _programs(self, site: Site) -> Programs:
        return programs_for(site.account, self._binaries, site.home / "programs")

    def _serves(self, site: Site, deadline: float) -> bool:
        """Take a step towards a server that serves: an adopted one may be dying or recovering."""
        if postmaster_pid(site) is None:
            self._launch(site)
        try:
            self._ensure_engine_database()
        except psycopg.OperationalError as problem:
            if boottime() > deadline:
                raise DatabaseAway(
                    f"the server in {self._folder} does not answer: {problem}"
                ) from problem
            return False
        return True

    def _launch(self, site: Site) -> None:
        programs = self._programs(site)
        site.prepare()
        if not site.data.exists():
            _lay_out(site, programs)
        _check_version(site, programs)
        text = configuration(site, self._settings)
        site.account.write(site.data / "postgresql.conf", text)
        _wait_until_gone(site)
        first_words = site.log / "start.log"
        first_words.unlink(missing_ok=True)
        if said := self._control(site, "start", "-l", first_words):
            raise _failure(site, f"PostgreSQL did not start: {said}\n{_log_tail(site)}")

    def _control(self, site: Site, verb: str, *more: str | Path) -> str:
        """Run pg_ctl, wait for the outcome, and return what it complained about."""
        pg_ctl = self._programs(site).path("pg_ctl")
        words = (pg_ctl, verb, "-D", site.data, "-w", "-t", str(_BOUND_S), *more)
        result = site.account.run(*words)
        return result.stdout.strip() or f"status {result.returncode}" if result.returncode else ""

    def _ensure_engine_database(self) -> None:
        memory = self._site().memory
        admin = psycopg.connect(
            self.url("postgres", "postgres"), autocommit=True, connect_timeout=5
        )
        with admin as connection:
            known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = 'engine'")
            if known.fetchone() is None:
                hashed = connection.pgconn.encrypt_password(  # the log never sees the plain one
                    memory.passwords["engine"].encode(), b"engine", b"scram-sha-256"
                )
                role = sql.SQL("CREATE ROLE engine LOGIN PASSWORD {}").format(hashed.decode())
                connection.execute(role)
            known = connection.execute("SELECT 1 FROM pg_database WHERE datname = 'engine'")
            if known.fetchone() is None:
                connection.execute("CREATE DATABASE engine OWNER engine")


def _lay_out(site: Site, programs: Programs) -> None:
    """Run initdb beside the data folder and move the result there: never a half-made one."""
    draft = site.home / "data.new"
    word = site.home / "word.new"
    said = ""
    for locale in _LOCALES:
        shutil.rmtree(draft, ignore_errors=True)
        site.account.own_folder(draft)
        site.account.write(word, site.memory.passwords["postgres"])
        result = site.account.run(
            programs.path("initdb"),
            *("--pgdata", draft, "--username", "postgres", "--pwfile", word),
            *("--auth", "scram-sha-256", "--data-checksums"),
            *("--encoding", "UTF8", "--locale", locale),
        )
        word.unlink()
        if result.returncode == 0:
            draft.rename(site.data)
            return
        said = result.stdout.strip()
    raise _failure(site, f"initdb failed: {said[-2000:]}")


def _check_version(site: Site, programs: Programs) -> None:
    made_by = int((site.data / "PG_VERSION").read_text())
    if made_by != programs.major:
        raise Conflict(
            f"{site.data} was made by PostgreSQL {made_by}, the programs in {programs.folder} are"
            f" {programs.major}: use the old ones, or pg_upgrade, or another folder"
        )


def _wait_until_gone(site: Site) -> None:
    """Let the processes of a killed server end, and their port and lock files with them."""
    began = boottime()
    while left := orphans(site):
        if boottime() > began + _BOUND_S:
            raise DatabaseAway(f"processes of a killed server still run: {left}")
        time.sleep(_POLL_S)
    # A pid in a lock file may be another program's by now, and PostgreSQL would believe it ours.
    (site.data / "postmaster.pid").unlink(missing_ok=True)
    for lock in site.sockets.glob(".s.PGSQL.*"):
        lock.unlink()
    while not port_is_free(site.memory.port):  # a killed process closes its sockets last
        if boottime() > began + _PORT_BOUND_S:
            raise Conflict(
                f"port {site.memory.port} of 127.0.0.1, which the server in {site.home} keeps,"
                " is taken by another program: stop that one first"
            )
        time.sleep(_POLL_S)


def _failure(site: Site, said: str) -> DatabaseAway:
    """Return the error for what PostgreSQL said, with the cause first that it mentions last."""
    if "No space left on device" in said or shutil.disk_usage(site.home).free < _ROOM_BYTES:
        said = f"the disk is full. {said}"
    return DatabaseAway(f"{site.home}: {said}")


def _log_tail(site: Site) -> str:
    logs = sorted(site.log.glob("*.log"), key=lambda path: path.stat().st_mtime)
    lines = [line for path in logs[-2:] for line in path.read_text(errors="replace").splitlines()]
    return "\n".join(lines[-_TAIL_LINES:])
