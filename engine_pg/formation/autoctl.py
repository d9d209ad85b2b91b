"""pg_autoctl, called as the formation's account, in the node's folder, with an environment of ours.

Passwords reach it, and the servers that it starts, by a file alone (`PGPASSFILE`): none stands on a
command line, in a setting or in a log. Its sockets are in a private folder; it wants to be told so
twice, as libpq and as its own tests do.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

from engine_pg.errors import Unavailable
from engine_pg.formation.layout import tls_words
from engine_pg.formation.place import ADDRESS, KEEPER, MONITOR, Place
from engine_pg.formation.profiles import KEEPER as KEEPER_SETTINGS
from engine_pg.formation.profiles import KEEPER_LINE, chosen
from engine_pg.formation.programs import Programs

_TAIL_LINES: Final = 6
Inside = Callable[[str], tuple[str, ...]]
"""What a command begins with that is to be run on the machine of the monitor or of a node."""

_APART: Final = 'exec setsid --fork "$2" run --pgdata "$3" >>"$1" 2>&1'
"""A session of its own, so that the terminal's Ctrl-C is not its, and nobody's child."""


class Autoctl:
    """The calls of pg_autoctl that a formation needs; what goes wrong raises `Unavailable`."""

    def __init__(self, place: Place, programs: Programs, inside: Inside) -> None:
        self._place = place
        self._programs = programs
        self._inside = inside

    def create(self, name: str) -> None:
        """Make the monitor, or a node: the first one is the primary, the next ones copy it."""
        words = ("monitor",) if name == MONITOR else self._node_words(name)
        self._call(
            name,
            *("create", *words, "--pgctl", self._programs.postgres / "pg_ctl"),
            *("--pgport", str(self._place.memory.ports[name]), "--hostname", ADDRESS),
            *("--skip-pg-hba", *tls_words(self._place)),
        )

    def configure(self, name: str) -> None:
        """Tell a keeper its settings; the monitor that it listens on our address only."""
        settings = chosen(KEEPER_SETTINGS, self._place.memory.profile)
        if name == MONITOR:
            settings = {"postgresql.listen_addresses": ADDRESS}
        for setting, value in settings.items():
            self.assign(name, setting, value)

    def assign(self, name: str, setting: str, value: str) -> None:
        """Write one of its own settings down; it takes it over at a start, or a SIGHUP."""
        self._call(name, "config", "set", setting, value)

    def start(self, name: str) -> None:
        """Start the monitor or a keeper with its server, none of which runs; it outlives us."""
        autoctl, data, log = self._programs.autoctl, self._place.data(name), self.log(name)
        # A pid in a file may be a zombie's or another program's, and would be believed.
        kept = self._place.home / "pg_autoctl" / data.relative_to("/") / "pg_autoctl.pid"
        for stale in (kept, data / "postmaster.pid"):
            stale.unlink(missing_ok=True)
        self._run(name, "/bin/sh", "-c", _APART, "sh", log, autoctl, data)

    def log(self, name: str) -> Path:
        """Return what pg_autoctl says while it runs."""
        return self._place.room(name) / "autoctl.log"

    def tail(self, name: str) -> str:
        """Return the last words of a running pg_autoctl."""
        log = self.log(name)
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        return "\n".join(lines[-_TAIL_LINES:])

    def _node_words(self, name: str) -> tuple[str, ...]:
        port, authority = self._place.memory.ports[MONITOR], self._place.tls / "ca.crt"
        verified = f"sslmode=verify-full&sslrootcert={authority}&{KEEPER_LINE}"
        monitor = f"postgres://{KEEPER}@{ADDRESS}:{port}/pg_auto_failover?{verified}"
        return ("postgres", "--name", name, "--listen", ADDRESS, "--monitor", monitor)

    def _call(self, name: str, *words: str | Path) -> None:
        order = (*words[:2], "--pgdata", self._place.data(name), *words[2:])
        result = self._run(name, self._programs.autoctl, *order)
        if result.returncode:
            said = "\n".join(result.stdout.strip().splitlines()[-_TAIL_LINES:])
            raise Unavailable(f"pg_autoctl {words[0]} of {name} failed:\n{said}")

    def _run(self, name: str, *command: str | Path) -> subprocess.CompletedProcess[str]:
        place = self._place
        try:
            return place.account.run(
                *command,
                inside=self._inside(name),
                cwd=place.room(name),
                env={
                    "PATH": self._programs.path,
                    "LC_ALL": "C.UTF-8",
                    "HOME": str(place.home),  # where it keeps what is not in the data folder
                    "XDG_RUNTIME_DIR": str(place.home),
                    "PG_REGRESS_SOCK_DIR": str(place.sockets),
                    "PGHOST": str(place.sockets),
                    "PGPASSFILE": str(place.pgpass),
                },
            )
        except subprocess.TimeoutExpired as expired:
            raise Unavailable(f"pg_autoctl took more than {expired.timeout:g} s: {name}") from None
