"""Short questions to the servers of a formation, as superuser through their private sockets.

Each is bounded as a whole: a frozen server accepts a connection and then says nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import DictRow, dict_row

from engine_pg.db.faults import translated
from engine_pg.db.wire import bounded, sever
from engine_pg.errors import DatabaseAway
from engine_pg.formation.layout import superuser
from engine_pg.formation.place import MONITOR, Place

BOUND_S: Final = 2.0
_CLOSING_S: Final = 1.0
Row = dict[str, Any]


@asynccontextmanager
async def session(
    place: Place, name: str, *, database: str = "", bound_s: float = BOUND_S
) -> AsyncGenerator[psycopg.AsyncConnection[DictRow]]:
    """Connect to the server of the monitor or a node; raises `DatabaseAway`."""
    try:
        async with asyncio.timeout(bound_s):
            connection = await psycopg.AsyncConnection[DictRow].connect(
                host=str(place.sockets),
                port=place.memory.ports[name],
                user=superuser(place),
                dbname=database or ("pg_auto_failover" if name == MONITOR else "postgres"),
                application_name="engine_pg formation",
                autocommit=True,
                row_factory=dict_row,
            )
    except TimeoutError as late:
        raise DatabaseAway(f"{name} does not answer") from late
    except psycopg.Error as error:
        raise translated(error) from error
    try:
        yield connection
    finally:
        sever(connection)  # an orderly goodbye would wait for a frozen server, too
        with suppress(psycopg.Error, TimeoutError):
            async with asyncio.timeout(_CLOSING_S):
                await connection.close()


async def ask(
    place: Place,
    name: str,
    query: LiteralString | sql.Composed,
    *,
    bound_s: float = BOUND_S,
) -> list[Row]:
    """Run one statement there, and return its rows."""
    async with session(place, name, bound_s=bound_s) as connection:
        cursor = await bounded(connection, connection.execute(query), bound_s)
        return await cursor.fetchall() if cursor.description else []
