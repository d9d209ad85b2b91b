"""What the database says, read straight from its tables on a connection of our own, read-only.

The engine is not asked how it fares while it is being hurt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, LiteralString, Self
from uuid import UUID

from engine_pg.clock import boottime
from engine_pg.db.database import connect
from engine_pg.db.tx import Connection, Params, Record
from engine_pg.db.wire import bounded
from engine_pg.errors import DatabaseAway, Unavailable

READ_ONLY: Final = "set default_transaction_read_only = on"
MEMBERS: Final[LiteralString] = """
select m.member_id, m.node, m.state, extract(epoch from m.ttl)::float8 as ttl_s,
       (select count(*) from command c where c.member_id = m.member_id and c.ended_at is null)
         as running
  from member m where m.state = 'live' order by running desc, m.joined_at
"""
LEADERSHIPS: Final[LiteralString] = "select name, member_id from leader"
RUN_BY: Final[LiteralString] = """
select command_id from command where member_id = %(member)s and ended_at is null
"""
COMMANDS: Final[LiteralString] = """
select command_id, name, state, error, member_id, ended_at is not null as final
  from command where command_id = any(%(ids)s::uuid[])
"""
POLL_S: Final = 0.02
_BOUND_S: Final = 5.0


class Watch:
    """Looks at the tables whenever asked; a lost connection is opened anew by the next look."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Connection | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._drop()

    async def rows(self, query: LiteralString, params: Params | None = None) -> list[Record]:
        """Return what a query finds; raises `DatabaseAway`."""
        try:
            connection = self._connection = self._connection or await self._open()
            cursor = await bounded(connection, connection.execute(query, params), _BOUND_S)
            return await cursor.fetchall()
        except BaseException:  # a look that was cut short may have severed it
            await self._drop()
            raise

    async def members(self) -> list[Record]:
        """Return the live members, the busiest first."""
        return await self.rows(MEMBERS)

    async def commands(self, ids: Sequence[UUID]) -> dict[UUID, Record]:
        """Return those commands that are there, by id."""
        found = await self.rows(COMMANDS, {"ids": list(ids)})
        return {record["command_id"]: record for record in found}

    async def until_final(
        self, ids: Sequence[UUID], bound_s: float, tell: Callable[[int], None] = lambda _: None
    ) -> dict[UUID, Record]:
        """Return the commands when all of them are there and final, or as they are at the bound."""
        deadline = boottime() + bound_s
        while True:
            try:
                found = await self.commands(ids)
            except DatabaseAway:  # the connection is from before a restart
                if boottime() > deadline:
                    raise
            else:
                open_ = len(set(ids)) - sum(record["final"] for record in found.values())
                if not open_ or boottime() > deadline:
                    return found
                tell(open_)
            await asyncio.sleep(10 * POLL_S)

    async def busiest(self, least: int, bound_s: float) -> Record:
        """Return the member that runs most commands as soon as it runs at least so many."""
        deadline = boottime() + bound_s
        while True:
            members = await self.members()
            if members and members[0]["running"] >= least:
                return members[0]
            if boottime() > deadline:
                raise Unavailable(f"no node ran {least} commands at once within {bound_s:g} s")
            await asyncio.sleep(POLL_S)

    async def _open(self) -> Connection:
        connection = await connect(self._url, name="engine_pg demo")
        try:
            await bounded(connection, connection.execute(READ_ONLY), _BOUND_S)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _drop(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None
