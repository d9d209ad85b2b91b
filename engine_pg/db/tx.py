"""A transaction: plain SQL or SQLAlchemy Core in, dictionaries out, never cut short.

Every statement runs shielded: a cancelled coroutine first lets the server answer. psycopg would
send a cancel instead, and a cancelled commit is reported as done while no standby has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, LiteralString, cast

import psycopg
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb
from sqlalchemy import Executable
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.sql.elements import CompilerElement

from engine_pg.db.wire import bounded

Query = LiteralString | Executable
Params = Mapping[str, Any]
Record = dict[str, Any]
Connection = psycopg.AsyncConnection[DictRow]

_DIALECT: Final = PGDialect_psycopg()


def _plain(value: object) -> object:
    return Jsonb(value) if isinstance(value, dict) else value


def compiled(query: Query, params: Params | None) -> tuple[LiteralString, Record]:
    """Return SQL text and parameters as psycopg takes them."""
    given = {key: _plain(value) for key, value in (params or {}).items()}
    if isinstance(query, str):
        return query, given
    statement = cast("CompilerElement", query).compile(
        dialect=_DIALECT, compile_kwargs={"render_postcompile": True}
    )
    own = {key: _plain(value) for key, value in (statement.params or {}).items()}
    return cast("LiteralString", statement.string), own | given


class Tx:
    """An open transaction on one connection; reads and writes go through it."""

    def __init__(self, connection: Connection, *, bound_s: float) -> None:
        self.connection = connection
        self._bound_s = bound_s

    async def all(self, query: Query, params: Params | None = None) -> list[Record]:
        """Run a query and return all its rows."""
        cursor = await self.execute(query, params)
        return await cursor.fetchall()

    async def first(self, query: Query, params: Params | None = None) -> Record | None:
        """Run a query and return its first row, or None."""
        cursor = await self.execute(query, params)
        return await cursor.fetchone()

    async def run(self, query: Query, params: Params | None = None) -> int:
        """Run a statement and return how many rows it touched."""
        return (await self.execute(query, params)).rowcount

    async def run_many(self, query: Query, params: Sequence[Params]) -> None:
        """Run one statement for each set of parameters, pipelined."""
        for each in params:
            await self.execute(query, each)

    async def execute(self, query: Query, params: Params | None) -> psycopg.AsyncCursor[DictRow]:
        """Run a statement and return its cursor."""
        text, values = compiled(query, params)
        return await bounded(self.connection, self.connection.execute(text, values), self._bound_s)
