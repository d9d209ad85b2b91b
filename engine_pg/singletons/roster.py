"""Which hosts each partition watches: one look at the inventory for all partitions of a node."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from uuid import UUID

from engine_pg.clock import Clock, boottime
from engine_pg.db.database import Database
from engine_pg.ids import hash64
from engine_pg.inventory import monitoring


class Roster:
    """The monitored hosts by partition, read again when they are older than `age_s` says."""

    def __init__(
        self,
        db: Database,
        *,
        partitions: int,
        age_s: Callable[[], float],
        clock: Clock = boottime,
    ) -> None:
        self.looks = 0
        self._db = db
        self._partitions = partitions
        self._age_s = age_s
        self._clock = clock
        self._hosts: dict[int, set[UUID]] = {}
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    async def of(self, partition: int) -> set[UUID]:
        """Return the hosts of a partition; raises `DatabaseAway` when they can't be read."""
        async with self._reading:  # whoever comes meanwhile takes what the first has read
            if self._clock() - self._read_at > self._age_s():
                await self._read()
            return self._hosts.get(partition, set())

    async def _read(self) -> None:
        now = self._clock()
        async with self._db.read() as tx:
            found = await monitoring.monitored_hosts(tx)
        hosts: dict[int, set[UUID]] = defaultdict(set)
        for watched in found:
            hosts[self.partition_of(watched.host.host_id)].add(watched.host.host_id)
        self._hosts, self._read_at = hosts, now
        self.looks += 1

    def partition_of(self, host_id: UUID) -> int:
        """Return the partition that a host belongs to."""
        return hash64(str(host_id)) % self._partitions
