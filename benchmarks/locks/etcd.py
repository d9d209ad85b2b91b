"""etcd through `aetcd`: etcd's transaction recipe, all keys of a node under its one lease.

`aetcd.Lock` itself grants a lease for every acquire, one more commit that is never given back. One
lease for a node is what etcd's own recipe does, it is faster, and it resembles ours more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from benchmarks.locks.contender import (
    PATIENCE_S,
    Contender,
    Foreign,
    Node,
    Place,
    free_ports,
    library,
    program,
    resident_bytes,
)
from benchmarks.locks.servers import served
from engine_pg.clock import boottime
from engine_pg.supervisor import Background

_CHANNEL: Final = {"grpc.use_local_subchannel_pool": 1}  # two nodes do not share a connection


class EtcdNode:
    """One client and its lease."""

    def __init__(self, aetcd: Foreign, client: Foreign, lease: Foreign, server_pid: int) -> None:
        self._aetcd = aetcd
        self._client = client
        self._lease = lease
        self._server_pid = server_pid

    async def acquire(self, key: str, wait_s: float = 0.0) -> bytes:
        """Create the key if there is none; else watch for its deletion and try again."""
        name = f"benchmark/{key}".encode()
        deadline = boottime() + wait_s
        make = self._client.transactions
        while True:
            got, answers = await self._client.transaction(
                compare=[make.create(name) == 0],
                success=[make.put(name, b"held", lease=self._lease)],
                failure=[make.get(name)],
            )
            if got:
                return name
            if (left_s := deadline - boottime()) <= 0:
                raise TimeoutError(f"{key} is locked")
            await self._client.watch_once(
                name,
                timeout=left_s,
                start_revision=answers[0][0][1].mod_revision + 1,
                kind=self._aetcd.EventKind.DELETE,
            )

    async def release(self, held: bytes) -> None:
        """Delete the key."""
        await self._client.delete(held)

    async def settle(self) -> None:
        """Return at once: a release was answered."""

    async def footprint(self) -> dict[str, int | None]:
        """Return the server's memory and the size of its store."""
        status = await self._client.status()
        memory = resident_bytes(self._server_pid, "RssAnon")
        return {"memory_bytes": memory, "stored_bytes": status.db_size, "connections": 1}

    async def keep_alive(self) -> None:
        """Renew the lease until cancelled."""
        while True:
            await asyncio.sleep(PATIENCE_S / 3)
            await self._lease.refresh()


@asynccontextmanager
async def _open(place: Place) -> AsyncGenerator[tuple[Node, Node]]:
    aetcd = library("aetcd")
    server = program("etcd", "etcd-server")
    port, peer_port = free_ports(2)
    clients, peers = (f"http://127.0.0.1:{number}" for number in (port, peer_port))
    command = (
        *(server, "--name", "benchmark", "--data-dir", "data", "--logger", "zap"),
        *("--listen-client-urls", clients, "--advertise-client-urls", clients),
        *("--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers),
        *("--initial-cluster", f"benchmark={peers}"),
    )
    one, two = (aetcd.Client("127.0.0.1", port, options=_CHANNEL) for _ in range(2))
    async with (
        served(place.folder / "etcd", *command, ready=lambda: one.get(b"ready")) as pid,
        one,
        two,
        Background() as background,
    ):
        nodes: list[EtcdNode] = []
        for client in (one, two):
            node = EtcdNode(aetcd, client, await client.lease(int(PATIENCE_S)), pid)
            background.start(node.keep_alive(), name="lease")
            nodes.append(node)
        yield nodes[0], nodes[1]


ETCD: Final = Contender(
    "etcd",
    what="one etcd, through aetcd: a transaction that creates the key under the node's lease",
    durability="every acquire and every release is flushed to the disk",
    waiting="watches for the deletion of the key, then tries again",
    open=_open,
)
