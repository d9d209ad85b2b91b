"""Named points at which a statement of the protocol stops until the test lets it go on.

A stop is a trigger that asks for an advisory lock which the test holds: what is to happen between
two steps is forced to happen there, not waited for.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import psycopg
from integration.nodes import eventually
from psycopg import sql

CLASS = 4242
INSTALL = """
create or replace function stop_here() returns trigger language plpgsql as $$
begin
  perform pg_advisory_xact_lock(4242, hashtext(tg_name));
  return coalesce(new, old);
end $$
"""
WAITING = """
select count(*) from pg_locks where locktype = 'advisory' and classid = 4242 and not granted
   and database = (select oid from pg_database where datname = current_database())
"""


class Stop:
    """A place where statements wait: `reached` returns when one does, `go` lets all go on."""

    def __init__(self, connection: psycopg.AsyncConnection, name: str) -> None:
        self._connection = connection
        self._name = name
        self._shut = True

    async def reached(self) -> None:
        async def waiting():
            cursor = await self._connection.execute(WAITING)
            return (await cursor.fetchone())[0]

        await eventually(waiting)

    async def go(self) -> None:
        if self._shut:
            self._shut = False
            await self._connection.execute(
                "select pg_advisory_unlock(%s, hashtext(%s))", [CLASS, self._name]
            )


@asynccontextmanager
async def stop_at(
    url: str,
    table: str,
    event: str,
    *,
    when: str = "",
    name: str = "stop_test",
    commit: bool = False,
) -> AsyncGenerator[Stop]:
    """Stop whoever does `event` ("before insert", ...) to a row of the table where `when` holds.

    `commit`: stop it there, when all else of its transaction is done ("after" events alone).
    """
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(INSTALL)
        await connection.execute("select pg_advisory_lock(%s, hashtext(%s))", [CLASS, name])
        condition = sql.SQL("when ({})").format(sql.SQL(when)) if when else sql.SQL("")
        await connection.execute(
            sql.SQL(
                "create {} trigger {} {} on {} {} for each row {} execute function stop_here()"
            ).format(
                sql.SQL("constraint" if commit else ""),
                sql.Identifier(name),
                sql.SQL(event),
                sql.Identifier(table),
                sql.SQL("deferrable initially deferred" if commit else ""),
                condition,
            )
        )
        stop = Stop(connection, name)
        try:
            yield stop
        finally:
            await stop.go()
            await connection.execute(
                sql.SQL("drop trigger {} on {}").format(sql.Identifier(name), sql.Identifier(table))
            )


SLOW = """
create schema stops;
create function stops.{0}(p_key bigint) returns boolean language plpgsql as $$
begin
  perform pg_catalog.pg_advisory_xact_lock_shared(4242, hashtext({1}));
  return pg_catalog.{0}(p_key);
end $$
"""


@asynccontextmanager
async def stop_in(url: str, function: str) -> AsyncGenerator[tuple[Stop, str]]:
    """Stop calls of a function of advisory locks before they do anything; yield whose URL does so.

    The statement that calls it has begun, and so its snapshot is taken.
    """
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        words = (sql.Identifier(function), sql.Literal(function))
        await connection.execute(sql.SQL(SLOW).format(*words))
        await connection.execute("select pg_advisory_lock(%s, hashtext(%s))", [CLASS, function])
        stop = Stop(connection, function)
        try:
            yield stop, f"{url}?options=-csearch_path%3Dstops,pg_catalog,public"
        finally:
            await stop.go()
            await connection.execute("drop schema stops cascade")
