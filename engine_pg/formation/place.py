"""Where a formation keeps its files, and what is decided once, at its first start.

    formation.json     ports, passwords, profile; for us alone (0600)
    ca.crt             what clients verify the servers with
    home/              the account's: certificates, pgpass, sockets, common settings
    home/monitor, home/node1, ...   data/, and what pg_autoctl said

A formation that root starts belongs to a borrowed account, as an embedded server does; where that
account cannot enter the folder, `home` is elsewhere.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote, urlencode

from engine_pg.db.embedded.account import Account, account_for
from engine_pg.db.embedded.site import elsewhere, explained, free_port, socket_folder
from engine_pg.errors import Conflict, Invalid, NotFound
from engine_pg.formation.profiles import Profile

MONITOR: Final = "monitor"
ADDRESS: Final = "127.0.0.1"
DATABASE: Final = "engine"
OWNER: Final = "engine"
KEEPER: Final = "autoctl_node"
REPLICATOR: Final = "pgautofailover_replicator"
WATCHER: Final = "engine_watch"
MONITOR_DATABASE: Final = "pg_auto_failover"
_SECRETS: Final = (KEEPER, REPLICATOR, OWNER, WATCHER)
_NOTE: Final = "formation.json"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked for: so many data nodes, a profile, the first of the ports (0: free ones)."""

    nodes: Literal[2, 3] = 2
    profile: Profile = "fast"
    base_port: int = 0


@dataclass(frozen=True, slots=True)
class Memory:
    """What is kept in `formation.json`."""

    home: str
    profile: Profile
    ports: dict[str, int]
    passwords: dict[str, str]
    complete: bool  # it came up once: what is there is not half made


@dataclass(frozen=True, slots=True)
class Place:
    """The folders of one formation."""

    folder: Path
    account: Account
    memory: Memory

    @property
    def home(self) -> Path:
        """Return the folder of all that belongs to the account."""
        return Path(self.memory.home)

    @property
    def sockets(self) -> Path:
        """Return the folder of the Unix sockets: nobody but the account and root gets in."""
        return socket_folder(self.home, self.account)

    @property
    def tls(self) -> Path:
        """Return the folder of the certificates."""
        return self.home / "tls"

    @property
    def pgpass(self) -> Path:
        """Return the file that the formation's own connections take their passwords from."""
        return self.home / "pgpass"

    @property
    def authority(self) -> Path:
        """Return the certificate that clients verify the servers with."""
        return self.folder / "ca.crt"

    @property
    def nodes(self) -> list[str]:
        """Return the names of the data nodes."""
        return [name for name in self.memory.ports if name != MONITOR]

    def room(self, name: str) -> Path:
        """Return the folder of the monitor or of a node."""
        return self.home / name

    def data(self, name: str) -> Path:
        """Return a data folder; a copy for it is first made beside it."""
        return self.room(name) / "data"

    def url(self) -> str:
        """Return the address of the engine's database, password included."""
        return self._url(OWNER, self.nodes, DATABASE) + "&target_session_attrs=read-write"

    def monitor_url(self) -> str:
        """Return the address of the monitor for who watches it, password included."""
        return self._url(WATCHER, [MONITOR], MONITOR_DATABASE)

    def _url(self, role: str, names: list[str], database: str) -> str:
        word = quote(self.memory.passwords[role], safe="")
        hosts = ",".join(f"{ADDRESS}:{self.memory.ports[name]}" for name in names)
        options = {
            "sslmode": "verify-full",
            "sslrootcert": str(self.authority),
            "channel_binding": "require",  # no server learns the password by posing as ours
        }
        return f"postgresql://{role}:{word}@{hosts}/{database}?{urlencode(options, safe='/')}"

    def keep(self, **changes: object) -> Place:
        """Return the place with its memory changed, on disk as well."""
        changed = replace(self, memory=replace(self.memory, **changes))  # pyright: ignore[reportArgumentType] - names of its fields
        _write(self.folder / _NOTE, json.dumps(asdict(changed.memory)))
        return changed


def opened(folder: Path) -> Place:
    """Return the place of the formation that was made in a folder."""
    note = folder / _NOTE
    if not note.exists():
        raise NotFound(f"no formation in {folder}: make one with `engine-pg formation up`")
    memory = Memory(**json.loads(note.read_text()))
    for name in set(_SECRETS) - set(memory.passwords):  # made by a release before
        memory.passwords[name] = secrets.token_urlsafe(24)
        _write(note, json.dumps(asdict(memory)))
    return Place(folder, account_for(Path(memory.home) / MONITOR), memory)


def laid_out(folder: Path, plan: Plan) -> Place:
    """Return the place in a folder, as planned; a new one is remembered."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o711 if os.geteuid() == 0 else 0o700)
        if (folder / _NOTE).exists():
            return _agreed(opened(folder), plan)
        account = account_for(folder / "home")
        home = folder / "home" if account.reaches(folder) else elsewhere(account, folder) / "home"
        names = (MONITOR, *(f"node{number}" for number in range(1, plan.nodes + 1)))
        words = {name: secrets.token_urlsafe(24) for name in _SECRETS}
        ports = dict(zip(names, _ports(len(names), plan.base_port), strict=True))
        memory = Memory(str(home), plan.profile, ports, words, complete=False)
        return Place(folder, account, memory).keep()
    except OSError as problem:
        raise Invalid(explained(problem, folder)) from problem


def _agreed(place: Place, plan: Plan) -> Place:
    if len(place.nodes) != plan.nodes:
        raise Conflict(
            f"the formation in {place.folder} has {len(place.nodes)} data nodes, not {plan.nodes}:"
            " `engine-pg formation down --delete` first, or choose --state-dir"
        )
    if plan.base_port not in (0, place.memory.ports[MONITOR]):
        raise Conflict(
            f"the formation in {place.folder} keeps its ports from {place.memory.ports[MONITOR]} on"
        )
    return place.keep(profile=plan.profile)


def _ports(count: int, first: int) -> Iterator[int]:
    if first:
        yield from range(first, first + count)
        return
    taken: set[int] = set()
    while len(taken) < count:
        if (port := free_port()) not in taken:
            taken.add(port)
            yield port


def _write(file: Path, text: str) -> None:
    Account(os.geteuid(), os.getegid(), borrowed=False).write(file, text)
