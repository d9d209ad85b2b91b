"""A table on the feed, those who write it and those who read it, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import psycopg

from engine_pg.cluster.feed import Changes, Cursor, Feed
from engine_pg.cluster.topics import CHANGES
from engine_pg.db.database import Database
from engine_pg.db.listener import Doorbells
from engine_pg.db.tx import Record

TABLES = """
create table account (
  name text primary key, balance integer not null default 0,
  secret text not null default '', version bigint not null default 1
);
select feed_attach('account', without => '{secret}');
"""


async def connect(url) -> psycopg.AsyncConnection:
    """Open a connection of somebody who knows nothing of the engine."""
    return await psycopg.AsyncConnection.connect(url, autocommit=True)


@asynccontextmanager
async def feed_of(
    url, *, ringing: bool = False, bound_s: float = 15.0, **options
) -> AsyncGenerator[Feed]:
    """Yield a feed as a node has it; without `ringing` no bell is heard."""
    async with AsyncExitStack() as stack:
        bells = Doorbells(url)
        database = Database(
            url, pool_max=4, bound_s=bound_s, on_commit=lambda: bells.ring_soon(CHANGES)
        )
        db = await stack.enter_async_context(database)
        if ringing:
            group = await stack.enter_async_context(asyncio.TaskGroup())
            running = group.create_task(bells.run())
            stack.callback(running.cancel)
        yield Feed(db, bells, **options)


@dataclass
class Reader:
    """Somebody who copies a table and keeps the copy by the feed."""

    feed: Feed
    cursor: Cursor = field(default_factory=lambda: Cursor(0, "1:1:"))
    rows: dict[str, Record] = field(default_factory=dict)
    got: list[tuple[str, str, int | None]] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)

    async def copy(self) -> None:
        async with self.feed.copy() as (tx, self.cursor):
            rows = await tx.all("select to_jsonb(account) - 'secret' as row from account")
        self.rows = {each["row"]["name"]: each["row"] for each in rows}

    async def read(self, **options) -> list[tuple[str, str, int | None]]:
        """Read on until there is no more, and return what came."""
        before = len(self.got)
        while self.take(await self.feed.read(self.cursor, **options)).more:
            pass
        return self.got[before:]

    def take(self, found: Changes) -> Changes:
        for change in found.changes:
            self.got.append((change.op, change.key, change.version))
            self.ids.append(change.change_id)
            if change.row is None:
                self.rows.pop(change.key, None)
            else:
                self.rows[change.key] = change.row
        self.cursor = found.cursor
        return found
