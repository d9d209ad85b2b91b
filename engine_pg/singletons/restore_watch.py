"""Notices that the database went back to an earlier point: hosts remember what it forgot.

A host that checks fencing tokens tells the highest that it has seen, once for each connection. One
above all that this database ever handed out was handed out in a future that is gone.

Does not promise: to notice a restore while no such host remembers anything of what was lost.
"""

from __future__ import annotations

import logging
from typing import Final, LiteralString
from weakref import WeakSet

from engine_pg.cluster.fence import Fencing
from engine_pg.cluster.leaders import Leadership
from engine_pg.db.database import Database
from engine_pg.hosts.driver import HostDriver, OpCtx
from engine_pg.inventory.rows import Host
from engine_pg.inventory.writes import NewEvent, append_event

log = logging.getLogger(__name__)

WENT_BACK: Final = 9103

TOKENS: Final[LiteralString] = """
select cluster_tokens_end() as last,
       (select epoch_id from cluster_epoch order by epoch_id desc limit 1) as epoch_id
"""
TURN: Final[LiteralString] = "select pg_advisory_xact_lock(7003, 2)"
TOLD: Final[LiteralString] = """
select 1 as told from (select code, at from event where code = 9103
                       union all select code, at from event_inbox where code = 9103) as e
 where at > (select recorded_at from cluster_epoch order by epoch_id desc limit 1) limit 1
"""


class RestoreWatch:
    """Compares what hosts have seen with what the database handed out."""

    def __init__(self, db: Database, fencing: Fencing) -> None:
        self._db = db
        self._fencing = fencing
        self._asked: WeakSet[HostDriver] = WeakSet()

    async def compare(
        self, leadership: Leadership, host: Host, driver: HostDriver, ctx: OpCtx
    ) -> None:
        """Tell, once in an epoch, when a host knows a token that was never handed out."""
        if driver in self._asked:
            return
        seen = (await driver.capabilities(ctx)).identity.highest_token
        async with self._db.read() as tx:  # begun after the host has answered
            row = await tx.first(TOKENS)
        assert row is not None
        if seen > row["last"]:
            await self._tell(leadership, _event(host, seen, row["epoch_id"]))
        self._asked.add(driver)

    async def _tell(self, leadership: Leadership, event: NewEvent) -> None:
        log.error("%s", event.description)
        async with self._fencing.tx(leadership.fence) as tx:
            await tx.run(TURN)  # partitions find it at the same time, each from its own hosts
            if await tx.first(TOLD) is None:
                await append_event(tx, event)


def _event(host: Host, seen: int, epoch_id: int) -> NewEvent:
    return NewEvent(
        code=WENT_BACK,
        severity="alert",
        description=(
            f"Host {host.name} has seen fencing token {seen}, of epoch {seen >> 40}; this database,"
            f" in epoch {epoch_id}, never handed it out: it was restored to an earlier point, or"
            " the host belonged to another engine. Hosts refuse what is older than they know: run"
            " `engine-pg db restored`."
        ),
        host_id=host.host_id,
        host_name=host.name,
        cluster_id=host.cluster_id,
    )
