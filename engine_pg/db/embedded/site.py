"""Where a server keeps its files, and what it must remember: port, passwords, place.

A server that root starts runs under a borrowed account, which cannot enter, say, a checkout below
a private /root. We loosen nobody's permissions: the server's own files then go to a folder below
/var/lib/engine-pg, and `server.json` in the asked folder remembers which one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import secrets
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from engine_pg.db.embedded.account import Account, account_for
from engine_pg.errors import Conflict, Invalid

_ELSEWHERE: Final = Path("/var/lib/engine-pg")
_SOCKET_NAME_BYTES: Final = len("/.s.PGSQL.65535")
_SOCKET_PATH_BYTES: Final = 107  # sockaddr_un's limit on Linux
_PORTS: Final = range(20000, 32000)  # below the range that outgoing connections draw from


@dataclass(frozen=True, slots=True)
class Memory:
    """What is decided once, at the first start, and kept in `server.json`."""

    home: str
    port: int
    passwords: dict[str, str]


@dataclass(frozen=True, slots=True)
class Site:
    """The places of one server."""

    account: Account
    memory: Memory

    @property
    def home(self) -> Path:
        """Return the folder of all the server's own files."""
        return Path(self.memory.home)

    @property
    def data(self) -> Path:
        """Return PostgreSQL's data folder."""
        return self.home / "data"

    @property
    def log(self) -> Path:
        """Return the folder of PostgreSQL's log files."""
        return self.home / "log"

    @property
    def sockets(self) -> Path:
        """Return the folder of the Unix socket: a short one when ours has too long a path."""
        return socket_folder(self.home, self.account)

    @property
    def name(self) -> str:
        """Return a short name that tells this server's processes from those of others."""
        return short_name(self.home)

    def prepare(self) -> None:
        """Create the account's folders."""
        for folder in (self.log, self.sockets):
            self.account.own_folder(folder)


def open_site(folder: Path, port: int) -> Site:
    """Return the site kept in a folder; decide and remember a new one when there is none."""
    note = folder / "server.json"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o711 if os.geteuid() == 0 else 0o700)
        if note.exists():
            memory = Memory(**json.loads(note.read_text()))
            if port not in (0, memory.port):
                raise Conflict(
                    f"the server in {folder} keeps port {memory.port}; {port} was asked for"
                )
            return Site(account_for(Path(memory.home) / "data"), memory)
        account = account_for(folder / "data")
        home = folder if account.reaches(folder) else elsewhere(account, folder)
        passwords = {name: secrets.token_urlsafe(24) for name in ("postgres", "engine")}
        memory = Memory(str(home), port or free_port(), passwords)
        Account(os.geteuid(), os.getegid(), borrowed=False).write(note, json.dumps(asdict(memory)))
    except OSError as problem:
        raise Invalid(explained(problem, folder)) from problem
    return Site(account, memory)


def explained(problem: OSError, folder: Path) -> str:
    """Return a system error as a sentence about a folder."""
    if problem.errno == errno.ENOSPC:
        return f"the disk of {folder} is full"
    return f"cannot keep a PostgreSQL server in {folder}: {problem.strerror} ({problem.filename})"


def short_name(home: Path) -> str:
    """Return a short name for a folder."""
    return hashlib.blake2b(os.fsencode(home), digest_size=6).hexdigest()


def socket_folder(home: Path, account: Account) -> Path:
    """Return a folder for Unix sockets whose path is not too long for them."""
    folder = home / "socket"
    if len(os.fsencode(folder)) + _SOCKET_NAME_BYTES <= _SOCKET_PATH_BYTES:
        return folder
    return Path("/tmp") / f"engine-pg-{account.uid}-{short_name(home)}"


def elsewhere(account: Account, folder: Path) -> Path:
    """Return a new folder that the account can reach, for the servers of one that it cannot."""
    home = _ELSEWHERE / f"postgres-{secrets.token_hex(4)}"
    home.mkdir(parents=True, mode=0o711)
    if not account.reaches(home):
        raise Invalid(f"the account with id {account.uid} cannot enter {home}")
    (home / "README").write_text(
        f"The PostgreSQL server of {folder}. Delete it with that folder.\n"
    )
    return home


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    for port in random.sample(_PORTS, k=100):
        if port_is_free(port):
            return port
    raise Conflict(f"found no free port from {_PORTS.start} to {_PORTS.stop}")


def port_is_free(port: int) -> bool:
    """Say whether a server could listen on this port of 127.0.0.1 right now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
