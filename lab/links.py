"""Places with a network of their own, on one bridge; to be used in an `enclosure` only."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from engine_pg.errors import Unavailable

NETWORK: Final = "10.77"
OUTSIDE: Final = f"{NETWORK}.0.254"  # the side of whoever makes the places
BRIDGE: Final = "outside"
_PER_NET: Final = 250
_BOUND_S: Final = 10.0
_ROUTE_LOCAL: Final = "echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet"

WAYS: Final = """
table ip ways {
  chain in { type nat hook prerouting priority -100; }
  chain at { type nat hook input priority 100; ip daddr 127.0.0.1 iifname != lo snat to 127.0.0.1; }
  chain out { type nat hook output priority -100; }
  chain off { type nat hook postrouting priority 100; ip saddr 127.0.0.1 oifname != lo masquerade; }
}
"""
"""Connections to ports of 127.0.0.1 may lead elsewhere, and come from 127.0.0.1 there."""


def address_of(number: int) -> str:
    """Return the address of a place."""
    return f"{NETWORK}.{1 + number // _PER_NET}.{1 + number % _PER_NET}"


def inside(name: str, *command: str) -> list[str]:
    """Return a command as it is to be run in a place."""
    return ["nsenter", f"--net=/run/netns/{name}", *command]


async def make_bridge(*addresses: str) -> None:
    """Make the bridge that all places hang on, and our own addresses there."""
    await run("ip", "link", "add", BRIDGE, "type", "bridge")
    for address in addresses:
        await run("ip", "address", "add", f"{address}/16", "dev", BRIDGE)
    await run("ip", "link", "set", BRIDGE, "up")
    await run("sh", "-c", _ROUTE_LOCAL)
    await nft(WAYS)


async def make_place(name: str, number: int) -> None:
    """Make a place: a network namespace with a wire to the bridge."""
    port = f"place-{number}"
    peer = ("peer", "name", "eth0", "netns", name)
    await run("ip", "netns", "add", name)
    await run("ip", "link", "add", port, "type", "veth", *peer)
    await run("ip", "link", "set", port, "master", BRIDGE, "up")
    within = ("ip", "-netns", name)
    await run(*within, "address", "add", f"{address_of(number)}/16", "dev", "eth0")
    for interface in ("lo", "eth0"):
        await run(*within, "link", "set", interface, "up")
    await run(*inside(name, "sh", "-c", _ROUTE_LOCAL))


def fresh_faults(chains: Mapping[str, str]) -> Iterator[str]:
    """Yield rules that make the table of what the bridge drops anew, with empty chains."""
    yield "table bridge faults"
    yield "delete table bridge faults"
    yield "add table bridge faults"
    for name, hook in chains.items():
        yield f"add chain bridge faults {name} {{ type filter hook {hook} priority 0; }}"


async def nft(rules: str, within: Sequence[str] = ()) -> None:
    """Give the packet filter some rules, in a place or outside."""
    await run(*within, "nft", "--file", "-", said=rules)


async def run(*command: str, said: str = "") -> None:
    """Run a program; raises `Unavailable` with what it said when it fails."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(_BOUND_S):
        told, _ = await process.communicate(said.encode())
    if process.returncode:
        raise Unavailable(f"{' '.join(command)}: {told.decode().strip()}")
