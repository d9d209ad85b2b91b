"""Machines: a network namespace each, in which programs find everybody at 127.0.0.1 by the port.

A port of 127.0.0.1 belongs to one machine; from anywhere else connections to it are led over the
bridge to that machine, where they come from 127.0.0.1. Ports of nobody are the outside's, where
whoever made the machines is. So what runs on one machine with many ports runs here unchanged.

A cut drops packets on the bridge; neither end is told. In an `enclosure` only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from lab.links import OUTSIDE, WAYS, address_of, fresh_faults, inside, make_bridge, make_place, nft

ELSEWHERE: Final = "outside"
"""The name of the outside, in cuts."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One namespace and the ports that programs in it listen on."""

    name: str
    address: str
    ports: tuple[int, ...]


class Machines:
    """All of them, the outside, and what does not get through between them."""

    def __init__(self) -> None:
        self._machines: dict[str, Machine] = {}
        self._cuts: set[tuple[str, str]] = set()

    async def make(self, name: str, *ports: int) -> None:
        """Add a machine on which programs will listen on some ports."""
        if not self._machines:
            await make_bridge(OUTSIDE)
        number = len(self._machines)
        await make_place(name, number)
        self._machines[name] = Machine(name, address_of(number), ports)
        await nft(WAYS, inside(name))
        await self._lead()

    def inside(self, name: str) -> tuple[str, ...]:
        """Return what a command begins with that is to be run there; nothing for no machine."""
        return tuple(inside(name)) if name in self._machines else ()

    async def cut(self, some: Collection[str], others: Collection[str]) -> None:
        """Let nothing through between some and others any more, either way."""
        self._cuts |= {(one, other) for one in some for other in others if one != other}
        await self._drop()

    async def silence(self, name: str) -> None:
        """Let nothing through from or to a machine any more."""
        await self.cut({name}, {*self._machines, ELSEWHERE})

    async def heal(self) -> None:
        """Let everything through again."""
        self._cuts.clear()
        await self._drop()

    def _address(self, name: str) -> str:
        return OUTSIDE if name == ELSEWHERE else self._machines[name].address

    async def _lead(self) -> None:
        """Tell all where ports are."""
        for machine in self._machines.values():
            await nft("\n".join(self._led(machine)), inside(machine.name))
        await nft("\n".join(self._led(None)))

    def _led(self, here: Machine | None) -> Iterator[str]:
        own = OUTSIDE if here is None else here.address
        yield "flush chain ip ways in"
        yield "flush chain ip ways out"
        yield f"add rule ip ways in ip daddr {own} dnat to 127.0.0.1"
        if here is not None:
            for port in here.ports:
                yield f"add rule ip ways out ip daddr 127.0.0.1 tcp dport {port} accept"
        for machine in self._machines.values():
            if machine is not here:
                for port in machine.ports:
                    led = f"ip daddr 127.0.0.1 tcp dport {port} dnat to {machine.address}"
                    yield f"add rule ip ways out {led}"
        if here is not None:
            yield f"add rule ip ways out ip daddr 127.0.0.1 meta l4proto tcp dnat to {OUTSIDE}"

    async def _drop(self) -> None:
        await nft("\n".join(self._dropped()))

    def _dropped(self) -> Iterator[str]:
        chains = {"in": "prerouting", "out": "output"}
        yield from fresh_faults(chains)
        for chain in chains:
            for one, other in sorted(self._cuts):
                near, far = self._address(one), self._address(other)
                for source, target in ((near, far), (far, near)):
                    yield f"add rule bridge faults {chain} ip saddr {source} ip daddr {target} drop"
