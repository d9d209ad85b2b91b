"""The folder that a stack lives in: everything that the next `engine-pg up` must find again."""

from __future__ import annotations

import fcntl
import json
import os
import random
import secrets
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import engine_pg
from engine_pg.db.embedded.site import port_is_free
from engine_pg.errors import Conflict, Invalid, NotFound

_API_PORT: Final = 8080
_HOST_PORTS: Final = range(11000, 19000)  # below the range that outgoing connections draw from
_OTHER_PORTS: Final = range(9100, 10900)
_ROOM: Final = 1000  # ports kept together: more hosts may come later


@dataclass(frozen=True, slots=True)
class Ports:
    """The first port of the nodes' APIs, the simulator's control port and its first host's."""

    api: int
    control: int
    hosts: int


def default_state_folder() -> Path:
    """Return the folder named by ENGINE_STATE_DIR, else one in the checkout, else the user's."""
    if given := os.environ.get("ENGINE_STATE_DIR"):
        return Path(given)
    checkout = Path(engine_pg.__file__).parent.parent
    if (checkout / "pyproject.toml").is_file() and os.access(checkout, os.W_OK):
        return checkout / ".state"
    home = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(home).expanduser() / "engine-pg"


class StateFolder:
    """The files of one stack; `locked` keeps a second stack out."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.logs = self.path / "logs"
        self.postgres = self.path / "postgres"
        self.formation = self.path / "formation"
        self.journal = self.path / "hosts.journal"
        self.hosts_ready = self.path / "hosts.json"
        self.password_file = self.path / "admin-password"
        self._description = self.path / "stack.json"
        self._ports = self.path / "ports.json"

    @contextmanager
    def locked(self) -> Generator[None]:
        """Hold the folder; it is created when it is not there."""
        try:
            # PostgreSQL's borrowed account must pass through where root owns the folder.
            self.path.mkdir(parents=True, exist_ok=True, mode=0o711 if os.geteuid() == 0 else 0o700)
            self.logs.mkdir(exist_ok=True, mode=0o700)
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as problem:
            raise Invalid(f"cannot keep state in {self.path}: {problem.strerror}") from problem
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as held:
            raise Conflict(
                f"another `engine-pg up` runs on {self.path}: stop it, or choose --state-dir"
            ) from held
        else:
            yield
        finally:
            os.close(descriptor)

    def in_use(self) -> bool:
        """Say whether a stack runs here."""
        try:
            descriptor = os.open(self.path / "lock", os.O_RDWR)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            os.close(descriptor)

    def admin_password(self) -> str:
        """Return the administrator's password, generated at the first call."""
        if not self.password_file.exists():
            self._write(self.password_file, secrets.token_urlsafe(12) + "\n")
        return self.password_file.read_text().strip()

    def ports(self, *, nodes: int, hosts: int, api: int = 0) -> Ports:
        """Return the kept ports, or choose and keep some; those of the hosts never change."""
        kept: dict[str, int] = json.loads(self._ports.read_text()) if self._ports.exists() else {}
        first = api or kept.get("api") or next(_blocks_from(_API_PORT, nodes))
        control = kept.get("control") or next(_blocks_from(random.choice(_HOST_PORTS), hosts + 1))
        ports = Ports(first, control, control + 1)
        wanted = [*range(first, first + nodes), *range(control, control + hosts + 1)]
        if taken := [port for port in wanted if not port_is_free(port)]:
            raise Conflict(
                f"port {taken[0]} of 127.0.0.1 is taken: stop what listens there, or choose"
                " --base-port for the API or another --state-dir for all"
            )
        self._write(self._ports, json.dumps(asdict(ports)))
        return ports

    def describe(self, stack: Mapping[str, Any]) -> None:
        """Publish what runs, for whoever attaches to the stack."""
        self._write(self._description, json.dumps(stack, indent=2) + "\n")

    def description(self) -> dict[str, Any]:
        """Return what the running stack published."""
        if not self._description.exists():
            raise NotFound(f"no stack runs on {self.path}: start one with `engine-pg up`")
        return json.loads(self._description.read_text())

    def forget_description(self) -> None:
        """Tell nobody any more about a stack that is gone."""
        self._description.unlink(missing_ok=True)

    def _write(self, file: Path, text: str) -> None:
        draft = file.with_name(f".{file.name}.new")
        draft.touch(mode=0o600)
        draft.write_text(text)
        draft.replace(file)


def free_ports(count: int) -> int:
    """Return the first of so many free ports in a row, not where the next stack would look too."""
    return next(_blocks_from(random.choice(_OTHER_PORTS), count))


def _blocks_from(first: int, count: int) -> Iterator[int]:
    """Yield where `count` free ports follow each other."""
    for start in range(first, first + _ROOM):
        if all(port_is_free(port) for port in range(start, start + count)):
            yield start
    raise Conflict(f"no {count} free ports in a row from {first} to {first + _ROOM}")
