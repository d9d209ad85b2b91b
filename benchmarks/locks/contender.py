"""What every way to lock must offer to be measured, and what a reader must know about it."""

from __future__ import annotations

import importlib
import os
import random
import shutil
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from benchmarks.ground import Missing

PATIENCE_S: Final = 30.0
"""How long a lock of a peer lives unattended, and how long anybody waits for one."""
_PORTS: Final = range(20000, 32000)  # below the range that outgoing connections draw from


Foreign = Any
"""What a peer's library calls its own; it need not be installed where types are checked."""


class Node(Protocol):
    """One node that locks."""

    async def acquire(self, key: str, wait_s: float = 0.0) -> Foreign:
        """Acquire a lock and return what gives it back."""
        ...

    async def release(self, held: Foreign) -> None:
        """Give a lock back."""
        ...

    async def settle(self) -> None:
        """Return when everything released is released."""
        ...

    async def footprint(self) -> dict[str, int | None]:
        """Return what the server spends on this node: memory, storage, connections."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where a contender runs: our database, and a folder for servers of its own."""

    url: str
    folder: Path


Opened = AbstractAsyncContextManager[tuple[Node, Node]]


@dataclass(frozen=True, slots=True)
class Contender:
    """A way to lock: how to open two nodes of it, and what its numbers mean."""

    name: str
    what: str
    durability: str
    waiting: str
    open: Callable[[Place], Opened]
    keeps_many: str = ""  # why one node cannot hold thousands, if it cannot


def program(name: str, package: str) -> str:
    """Return the path of a server's program, or say which package has it."""
    path = os.environ.get("PATH", os.defpath)
    found = shutil.which(name, path=f"{path}:/usr/sbin:/sbin")
    if found is None:
        raise Missing(f"there is no {name}: install Debian's package {package}")
    return found


def library(name: str) -> Foreign:
    """Return a client library, or say how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Missing(f"there is no {name} here: install it with `make setup-bench`") from error


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that nobody listens on right now."""
    free: list[int] = []
    for port in random.sample(_PORTS, k=200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        free.append(port)
        if len(free) == count:
            return free
    raise Missing("there are no free ports on 127.0.0.1")


def resident_bytes(pid: int, *kinds: str) -> int | None:
    """Return a process's resident memory of these kinds (RssAnon, VmRSS, ...), None if hidden."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    sizes = (line.split() for line in lines if line.partition(":")[0] in kinds)
    return sum(int(size[1]) * 1024 for size in sizes)
