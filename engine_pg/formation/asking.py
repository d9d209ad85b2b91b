"""Short questions to the servers of a formation, as superuser through their private sockets.

Each is bounded as a whole: a frozen server accepts a connection and then says nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, LiteralString, Self

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import DictRow, dict_row

from engine_pg.db.addresses import located
from engine_pg.db.faults import translated
from engine_pg.db.wire import bounded, sever
from engine_pg.errors import DatabaseAway
from engine_pg.formation.layout import superuser
from engine_pg.formation.place import MONITOR, MONITOR_DATABASE, Place

BOUND_S: Final = 2.0
_CLOSING_S: Final = 1.0
Row = dict[str, Any]
Connection = psycopg.AsyncConnection[DictRow]


@asynccontextmanager
async def session(
    place: Place, name: str, *, bound_s: float = BOUND_S
) -> AsyncGenerator[Connection]:
    """Connect to the server of the monitor or a node; raises `DatabaseAway`."""
    connection = await opened(name, _address(place, name), bound_s=bound_s)
    try:
        yield connection
    finally:
        await closed(connection)


def _address(place: Place, name: str) -> str:
    return make_conninfo(
        host=str(place.sockets),
        port=place.memory.ports[name],
        user=superuser(place),
        dbname=MONITOR_DATABASE if name == MONITOR else "postgres",
    )


async def opened(
    whom: str,
    address: str,
    *,
    bound_s: float = BOUND_S,
    more: Mapping[str, str | int] | None = None,
) -> Connection:
    """Return a connection to a server; raises `DatabaseAway`."""
    try:
        async with asyncio.timeout(bound_s):
            return await psycopg.AsyncConnection[DictRow].connect(
                await located(make_conninfo(address, **(more or {}))),
                application_name="engine_pg formation",
                autocommit=True,
                row_factory=dict_row,
            )
    except TimeoutError as late:
        raise DatabaseAway(f"{whom} does not answer") from late
    except psycopg.Error as error:
        raise translated(error) from error


async def closed(connection: Connection) -> None:
    """Hang up: an orderly goodbye would wait for a frozen server, too."""
    sever(connection)
    with suppress(psycopg.Error, TimeoutError):
        async with asyncio.timeout(_CLOSING_S):
            await connection.close()


async def answer(
    connection: Connection, query: LiteralString | sql.Composed, bound_s: float = BOUND_S
) -> list[Row]:
    """Run one statement on a connection, and return its rows."""
    cursor = await bounded(connection, connection.execute(query), bound_s)
    return await cursor.fetchall() if cursor.description else []


async def ask(
    place: Place,
    name: str,
    query: LiteralString | sql.Composed,
    *,
    bound_s: float = BOUND_S,
) -> list[Row]:
    """Run one statement there, and return its rows."""
    async with session(place, name, bound_s=bound_s) as connection:
        return await answer(connection, query, bound_s)


class Sessions:
    """Sessions with servers that are asked again and again; a lost one is opened anew.

    Connections at that pace would take the processor that a promotion needs.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._open: dict[str, Connection] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        while self._open:
            await closed(self._open.popitem()[1])

    async def ask(self, name: str, query: LiteralString) -> list[Row]:
        """Run one statement there, and return its rows; one at a time."""
        connection = self._open.pop(name, None) or await opened(name, _address(self._place, name))
        try:
            rows = await answer(connection, query)
        except BaseException:
            await closed(connection)
            raise
        self._open[name] = connection
        return rows
