"""Links between machines: each process has a network namespace and a wire to a bridge.

The kernel's own TCP meets the faults. A cut drops packets on the bridge, where neither end is told;
a loss drops some of them; a delay leads both ends around through a `wire` in user space, for not
every kernel has netem. To be used in an `enclosure` only: nothing here takes care of names or of
what is left over.

A process finds everybody where it would on one machine: connections to ports of 127.0.0.1 are led
out to the conductor's side, those of the conductor to a node's API into its namespace, and each
side's program sees them come from 127.0.0.1. The database alone has an address of its own, from
which new connections are led to the present primary.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from chaos.network import CONDUCTOR, Harm
from engine_pg.errors import Unavailable
from lab.links import (
    NETWORK,
    OUTSIDE,
    WAYS,
    address_of,
    fresh_faults,
    inside,
    make_bridge,
    make_place,
    nft,
    run,
)

DATABASE = f"{NETWORK}.0.253"
DATABASE_PORT = 5432
CONDUCTOR_PORT = 5  # of 127.0.0.1, for the conductor
BOUND_S = 10.0

INSIDE = """
add rule ip ways in ip daddr {address} dnat to 127.0.0.1
add rule ip ways out ip daddr 127.0.0.1 tcp dport != {listens} dnat to {outside}
"""


@dataclass(slots=True)
class Place:
    """One namespace: a machine of its own."""

    name: str
    number: int
    target: int
    listens: int
    harm: Harm = field(default_factory=Harm)
    wire: asyncio.subprocess.Process | None = None

    @property
    def address(self) -> str:
        return address_of(self.number)


class Namespaces:
    """All places, and the outside, where the conductor, the database and the hosts are."""

    mechanism = (
        "Each node and lock client has a network namespace of its own, each link is a pair of"
        " virtual interfaces on a bridge: cuts, both ways or one, and losses are packets that the"
        " kernel drops (nftables) without telling anybody; delays are made by a wire in user space."
    )
    whole_machines = True

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}
        self._conductor = 0  # the port of its database

    async def open(self, link: str, *, target: int, listens: int = 0) -> None:
        """Make a link to a port of this machine; its process may listen on a port for others."""
        if not self._places and not self._conductor:
            await make_bridge(OUTSIDE, DATABASE)
        if link == CONDUCTOR:
            self._conductor = target
        else:
            place = Place(link, len(self._places), target, listens)
            await self._make(place)
            self._places[link] = place
        await self._lead()

    def address(self, link: str) -> tuple[str, int]:
        """Return where the process of a link finds the database."""
        return ("127.0.0.1", CONDUCTOR_PORT) if link == CONDUCTOR else (DATABASE, DATABASE_PORT)

    def inside(self, link: str, command: Sequence[str]) -> list[str]:
        """Return a command as it is to be run by whoever uses the link."""
        if link == CONDUCTOR:
            return list(command)
        return inside(link, *command)

    async def route(self, link: str, target: int) -> None:
        """Lead new connections to another port."""
        if link == CONDUCTOR:
            self._conductor = target
        else:
            self._places[link].target = target
        await self._lead()

    async def hurt(self, link: str, harm: Harm) -> None:
        """Let a harm begin, instead of any other."""
        if link == CONDUCTOR:
            return  # it has no lease that could be at stake
        place = self._places[link]
        place.harm = harm
        await self._drop()
        if harm.delay_s:
            await self._lengthen(place, harm.delay_s)

    async def heal(self, link: str, *, reset: bool = False) -> None:
        """Make a link whole; what was held back arrives late, or its connections are reset."""
        if link != CONDUCTOR:
            place = self._places[link]
            place.harm = Harm()
            await self._shorten(place)
            await self._drop()
        if reset:
            host, port = self.address(link)
            found = ["state", "established", "dst", host, "dport", "=", f"{port}"]
            await run(*self.inside(link, ["ss", "--kill", "--tcp", *found]))

    async def close(self) -> None:
        """Take everything down."""
        for place in self._places.values():
            await self._shorten(place)

    async def _make(self, place: Place) -> None:
        await make_place(place.name, place.number)
        rules = INSIDE.format(address=place.address, listens=place.listens, outside=OUTSIDE)
        await nft(WAYS + rules, inside(place.name))

    async def _lead(self) -> None:
        """Lead new connections to where they belong now; those that stand stay where they are."""
        await nft("\n".join(self._led()))

    def _led(self) -> Iterator[str]:
        yield "flush chain ip ways in"
        yield "flush chain ip ways out"
        yield f"add rule ip ways in ip daddr {OUTSIDE} dnat to 127.0.0.1"
        own = f"ip daddr 127.0.0.1 tcp dport {CONDUCTOR_PORT}"
        yield f"add rule ip ways out {own} dnat to 127.0.0.1:{self._conductor}"
        for place in self._places.values():
            source = f"ip saddr {place.address} ip daddr {DATABASE} tcp dport {DATABASE_PORT}"
            yield f"add rule ip ways in {source} dnat to 127.0.0.1:{place.target}"
            if place.listens:
                api = f"ip daddr 127.0.0.1 tcp dport {place.listens}"
                yield f"add rule ip ways out {api} dnat to {place.address}"

    async def _drop(self) -> None:
        """Drop, from now on, what is to be dropped and nothing else."""
        await nft("\n".join(self._dropped()))

    def _dropped(self) -> Iterator[str]:
        yield from fresh_faults({"up": "prerouting", "down": "output"})
        for place in self._places.values():
            for way, near, far in (("up", "saddr", "daddr"), ("down", "daddr", "saddr")):
                rule = f"add rule bridge faults {way} ip {near} {place.address}"
                to_database = f"{rule} ip {far} {DATABASE}"
                if place.harm.cut and way in place.harm.ways:
                    yield f"{rule if place.harm.everybody else to_database} drop"
                if place.harm.loss:
                    often = round(place.harm.loss * 1000)
                    yield f"{to_database} numgen random mod 1000 < {often} drop"

    async def _lengthen(self, place: Place, delay_s: float) -> None:
        """Lead what goes to and from the database through a slow wire."""
        near, far = f"near-{place.number}", f"far-{place.number}"
        place.wire = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "chaos.wire", near, far, f"{delay_s}"),
            stdout=asyncio.subprocess.PIPE,
        )
        assert place.wire.stdout is not None
        async with asyncio.timeout(BOUND_S):
            if not await place.wire.stdout.readline():
                raise Unavailable("there is no slow wire")
        await run("ip", "link", "set", near, "netns", place.name)
        within = ("ip", "-netns", place.name)
        await run(*within, "link", "set", near, "up")
        await run("ip", "link", "set", far, "up")
        source = ("src", place.address)
        await run(*within, "route", "add", f"{DATABASE}/32", "dev", near, *source)
        await run("ip", "route", "add", f"{place.address}/32", "dev", far, "src", OUTSIDE)

    async def _shorten(self, place: Place) -> None:
        """Take a slow wire away: its interfaces go, and the routes with them."""
        if place.wire is not None:
            with contextlib.suppress(ProcessLookupError):
                place.wire.kill()
            await place.wire.wait()
            place.wire = None
