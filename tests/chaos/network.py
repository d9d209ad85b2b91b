"""What the nemesis asks of a network, be it made of namespaces or of relays in user space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Way = Literal["up", "down"]  # to the database, and back
BOTH: tuple[Way, Way] = ("up", "down")
CONDUCTOR = "conductor"  # the run itself, which also has a link


@dataclass(frozen=True, slots=True)
class Harm:
    """What befalls a link: ways are cut (to everybody, or to the database), slow or lossy."""

    ways: Sequence[Way] = BOTH
    cut: bool = False
    everybody: bool = False
    delay_s: float = 0.0
    loss: float = 0.0


class Network(Protocol):
    """Gives each process a link to the database, and hurts and heals it."""

    mechanism: str
    whole_machines: bool  # a process may be taken from everybody, not from the database alone

    async def open(self, link: str, *, target: int, listens: int = 0) -> None:
        """Make a link to a port of this machine; its process may listen on a port for others."""
        ...

    def address(self, link: str) -> tuple[str, int]:
        """Return where the process of a link finds the database."""
        ...

    def inside(self, link: str, command: Sequence[str]) -> list[str]:
        """Return a command as it is to be run by whoever uses the link."""
        ...

    async def route(self, link: str, target: int) -> None:
        """Lead new connections to another port."""
        ...

    async def hurt(self, link: str, harm: Harm) -> None:
        """Let a harm begin, instead of any other."""
        ...

    async def heal(self, link: str, *, reset: bool = False) -> None:
        """Make a link whole; what was held back arrives late, or its connections are reset."""
        ...

    async def close(self) -> None:
        """Take everything down."""
        ...
