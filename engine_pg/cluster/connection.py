"""The connection of a lock session: one statement at a time, and no warning is taken lightly.

A commit whose wait for a standby was cut short succeeds, with a warning. So whatever warned has an
unknown outcome, as has whatever got no answer within its bound.
"""

from __future__ import annotations

import json
from typing import Final, LiteralString

import psycopg

from engine_pg.cluster.batch import BATCH
from engine_pg.cluster.members import HEARTBEATS
from engine_pg.db.database import connect
from engine_pg.db.pipeline import Pipeline
from engine_pg.db.pooler import refuse_sharing
from engine_pg.db.tx import Connection, Record
from engine_pg.db.wire import bounded
from engine_pg.errors import OutcomeUnknown

SETTINGS: Final = """
select set_config('idle_session_timeout', %(ttl_ms)s, false),
       set_config('client_connection_check_interval', '500ms', false),
       set_config('lock_timeout', '2s', false),
       set_config('statement_timeout', '0', false),
       set_config('synchronous_commit', 'on', false),
       set_config('engine_pg.rings', 'after commit', false),
       set_config('plan_cache_mode', 'force_generic_plan', false),
       set_config('enable_hashjoin', 'off', false),
       set_config('enable_mergejoin', 'off', false)
"""
"""The last three: each statement is planned once, for tables that may have grown since."""


class SessionConnection:
    """A connection that the server ends by itself when it heard nothing for a ttl."""

    def __init__(self, connection: Connection, bound_s: float) -> None:
        self._connection = connection
        self._bound_s = bound_s
        self._warnings: list[str] = []
        connection.add_notice_handler(self._notice)
        self._batches = Pipeline(connection, "engine_pg_batch", BATCH)

    @classmethod
    async def open(cls, url: str, *, node: str, ttl_s: float) -> SessionConnection:
        """Connect to the writable server."""
        opened = cls(await connect(url, name=f"engine_pg lock session {node}"), ttl_s)
        try:
            # Near the ttl: a frozen process loses its session without anybody's help.
            await opened.ask(SETTINGS, {"ttl_ms": str(int(ttl_s * 1000))})
        except BaseException:
            await opened.close()
            raise
        return opened

    async def refuse_sharing(self, url: str) -> None:
        """Raise `Invalid` when a pooler shares this session with others."""
        await refuse_sharing(self._connection, url)

    async def ask(
        self,
        query: LiteralString,
        params: Record,
        bound_s: float | None = None,
    ) -> Record:
        """Run one statement and return its row, within `bound_s` (a ttl, if not given).

        Batches may be asked for before the earlier ones are answered; anything else goes alone.
        """
        if query is BATCH:
            return {"reply": json.loads(await self._batches.ask(params, bound_s or self._bound_s))}
        self._warnings.clear()
        # From the first time on: to parse and to plan a heartbeat costs more than to run it.
        statement = self._connection.execute(query, params, prepare=query in HEARTBEATS or None)
        cursor = await bounded(self._connection, statement, bound_s or self._bound_s)
        row = await cursor.fetchone()
        if self._warnings or row is None:
            raise OutcomeUnknown(f"the server warned: {', '.join(self._warnings)}")
        return row

    async def close(self) -> None:
        """Close; what is under way gets no answer."""
        self._batches.stop()
        await self._connection.close()

    def _notice(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        if diagnostic.severity_nonlocalized == "WARNING":
            self._warnings.append(diagnostic.message_primary or "warning")
