"""A process that writes to a table on the feed, or follows it and judges what comes.

    python feed_worker.py write URL SEED       until its standard input ends
    python feed_worker.py hold URL SEED        writes a key of its own and stays open, often
    python feed_worker.py read URL SEED        until then; it prints its verdict as JSON
    python feed_worker.py replicate URL SEED   the same with a node's replica, behind its barrier

Each says "ready" when it has begun, and who holds for how long each time, as JSON.

Every change of a key raises its tally in the same transaction: the n-th change of a key that comes
must be number n. So whatever befalls a writer, what he committed is known.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import threading
import time
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import dataclass

import psycopg
from typing_extensions import override

from engine_pg.clock import boottime
from engine_pg.cluster.feed import Changes, Cursor, Feed, Resync
from engine_pg.cluster.topics import CHANGES
from engine_pg.db.database import Database
from engine_pg.db.listener import Doorbells
from engine_pg.errors import EngineError
from engine_pg.replica.replica import Replica
from engine_pg.replica.table import Table
from engine_pg.replica.view import View
from engine_pg.supervisor import Background

KEYS = 40
TABLES = """
create table tally (key text primary key, n bigint not null default 0);
insert into tally select n from generate_series(1, 40) as n union all select 0;
create table item (
  key text primary key, version bigint not null, writer text not null, at_s float8 not null
);
select feed_attach('item');
"""
TALLY = "update tally set n = n + 1 where key = %s returning n"
WRITE = """
insert into item values (%(key)s, %(n)s, %(writer)s, %(at_s)s)
on conflict (key) do update
   set version = excluded.version, writer = excluded.writer, at_s = excluded.at_s
"""
BLIND = "update item set version = version where key = %s"
DELETE = "delete from item where key = %s"
LONG_S = float(os.environ.get("ENGINE_FEED_STRESS_S", "10")) / 3
SHORT_S = 1.0
SLEEP_S = 3.0
HELD = "0"
QUICK = ("1", "2", "3")  # writers whose transactions are short
BOUND_S = 30.0


class RolledBack(Exception):
    """On purpose."""


class Writer:
    """Changes random keys in transactions of all shapes."""

    def __init__(self, url: str, seed: int) -> None:
        self._url = url
        self._name = str(seed)
        self._random = random.Random(seed)
        self._slow = seed % 4 == 0

    def run(self, over: threading.Event) -> None:
        while not over.is_set():
            with suppress(psycopg.Error), psycopg.connect(self._url, autocommit=True) as session:
                if self._random.random() < 0.5:  # rings as an engine's node does: not in there
                    session.execute("set engine_pg.rings = 'after commit'")
                for _ in range(50):
                    if not over.is_set():
                        with suppress(RolledBack, psycopg.errors.DeadlockDetected):
                            self._transaction(session, over)

    def _transaction(self, session: psycopg.Connection, over: threading.Event) -> None:
        draw = self._random
        with session.transaction():
            if draw.random() < 0.3:
                session.execute("select pg_current_xact_id()")
                time.sleep(draw.random() * 0.02)
            for _ in range(draw.choice((1, 1, 1, 3))):
                with suppress(RolledBack):
                    if draw.random() < 0.3:
                        with session.transaction():
                            self._change(session)
                            if draw.random() < 0.3:
                                raise RolledBack
                    else:
                        self._change(session)
            if self._slow and draw.random() < 0.02:
                over.wait(draw.random() * SHORT_S)
            if draw.random() < 0.15:
                raise RolledBack

    def _change(self, session: psycopg.Connection) -> None:
        self._change_key(session, str(self._random.randint(1, KEYS)))

    def _change_key(self, session: psycopg.Connection, key: str) -> None:
        n = session.execute(TALLY, [key]).fetchone()[0]
        if self._random.random() < 0.15 and session.execute(DELETE, [key]).rowcount:
            return
        session.execute(BLIND, [key])
        values = {"key": key, "n": n, "writer": self._name, "at_s": boottime()}
        session.execute(WRITE, values)


class Holder(Writer):
    """Changes a key that nobody else does, and leaves its transaction open for long."""

    def __init__(self, url: str, seed: int) -> None:
        super().__init__(url, seed)
        self.held_s: list[float] = []

    @override
    def run(self, over: threading.Event) -> None:
        while not over.is_set():
            with suppress(psycopg.Error), psycopg.connect(self._url) as session:
                self._change_key(session, HELD)
                began_at = boottime()
                over.wait(LONG_S)
                session.commit()
                self.held_s.append(boottime() - began_at)
            over.wait(LONG_S / 2)


class Follower:
    """Keeps a copy by the feed and holds each change against the tally."""

    def __init__(self, feed: Feed, *, sleeps: random.Random | None) -> None:
        self._feed = feed
        self._sleeps = sleeps
        self.wrong: list[object] = []
        self.changes = self.copies = self.passed = 0
        self.delays_s: list[float] = []  # of the quick writers' changes
        self._counted: dict[str, int] = {}
        self._rows: dict[str, tuple[int, str]] = {}
        self._cursor = Cursor(0, "1:1:")

    async def run(self) -> None:
        while True:
            try:
                if not self._cursor.epoch_id:
                    await self._copy()
                async with aclosing(self._feed.follow(self._cursor)) as following:
                    async for found in following:
                        self._take(found)
                        if self._sleeps and self._sleeps.random() < 0.05:
                            await asyncio.sleep(SLEEP_S)
            except Resync as reason:
                self.passed += "trimmed" in str(reason)
                self._cursor = Cursor(0, "1:1:")
            except EngineError:
                await asyncio.sleep(0.1)

    async def finish(self) -> None:
        """Read all that there is, and compare the copy with the tables."""
        while True:
            try:
                found = await self._feed.read(self._cursor, sync=True)
                self._take(found)
                if not found.more:
                    break
            except Resync as reason:
                self.passed += "trimmed" in str(reason)
                await self._copy()
        async with self._feed.copy() as (tx, _):
            rows = await tx.all("select key, version, writer from item")
            tally = await tx.all("select key, n from tally where n > 0")
        if {row["key"]: (row["version"], row["writer"]) for row in rows} != self._rows:
            self.wrong.append("the copy differs from the table")
        for row in tally:
            if self._counted.get(row["key"], 0) != row["n"]:
                self.wrong.append([row["key"], "has", row["n"], self._counted.get(row["key"])])

    async def _copy(self) -> None:
        async with self._feed.copy() as (tx, cursor):
            rows = await tx.all("select key, version, writer from item")
            tally = await tx.all("select key, n from tally")
        self._rows = {row["key"]: (row["version"], row["writer"]) for row in rows}
        self._counted = {row["key"]: row["n"] for row in tally}
        self._cursor = cursor
        self.copies += 1
        if self.copies == 1:
            say("ready")

    def _take(self, found: Changes) -> None:
        for change in found.changes:
            self.changes += 1
            n = self._counted[change.key] = self._counted.get(change.key, 0) + 1
            if change.row is None:
                if self._rows.pop(change.key, None) is None:
                    self.wrong.append([change.key, n, "deleted, and was not there"])
                continue
            if change.row["writer"] in QUICK:
                self.delays_s.append(boottime() - change.row["at_s"])
            if change.version != n:
                self.wrong.append([change.key, "expected", n, "came", change.version])
            self._rows[change.key] = (change.version or 0, change.row["writer"])
        self._cursor = found.cursor


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A row of the table."""

    key: str
    version: int
    writer: str


ITEMS = Table(
    kind=Item,
    topic="item",
    copy="select to_jsonb(t) as row from item t",
    key=lambda record: record["key"],
    place=lambda row: (row.key,),
)


class Looker:
    """Looks at a replica again and again: no key may turn back, whatever befalls the database."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._highest: dict[str, int] = {}
        self.looks = 0
        self.wrong: list[object] = []

    async def run(self) -> None:
        while True:
            with suppress(EngineError):
                self.look(await self._replica.passed())
                if self.looks == 1:
                    say("ready")
            await asyncio.sleep(0.005)

    def look(self, view: View) -> dict[str, tuple[int, str]]:
        self.looks += 1
        rows = {row.key: (row.version, row.writer) for row in view.of(Item)}
        for key, (version, _) in rows.items():
            if version < self._highest.get(key, 0):
                self.wrong.append([key, "was", self._highest[key], "is", version])
            self._highest[key] = version
        return rows


async def replicate(url: str) -> None:
    async with AsyncExitStack() as stack:
        bells = Doorbells(url)
        database = Database(url, pool_max=2, on_commit=lambda: bells.ring_soon(CHANGES))
        db = await stack.enter_async_context(database)
        replica = Replica(Feed(db, bells, limit=100), bells, [ITEMS], poll_s=0.3)
        looker = Looker(replica)
        background = await stack.enter_async_context(Background())
        for each in (bells.run(), replica.run(), looker.run()):
            background.start(each, name="replica")
        await asyncio.to_thread(sys.stdin.read)
        rows = looker.look(await replica.passed())
        table = await db.once("select key, version, writer from item")
        if {row["key"]: (row["version"], row["writer"]) for row in table} != rows:
            looker.wrong.append("the replica differs from the table")
    figures = replica.figures
    verdict = {"wrong": looker.wrong[:20], "looks": looker.looks, "changes": figures.changes}
    say(json.dumps(verdict | {"copies": figures.copies, "losses": figures.losses}))


async def read(url: str, seed: int) -> None:
    async with AsyncExitStack() as stack:
        bells = Doorbells(url)
        database = Database(url, pool_max=2, on_commit=lambda: bells.ring_soon(CHANGES))
        db = await stack.enter_async_context(database)
        sleeps = random.Random(seed) if seed % 2 else None
        follower = Follower(Feed(db, bells, poll_s=0.3, limit=100), sleeps=sleeps)
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(each) for each in (bells.run(), follower.run())]
            await asyncio.to_thread(sys.stdin.read)
            for each in running:
                each.cancel()
            await asyncio.wait(running)
            started = boottime()
            await follower.finish()
    verdict = {"wrong": follower.wrong[:20], "changes": follower.changes}
    verdict |= {"copies": follower.copies, "finish_s": boottime() - started}
    verdict |= {"sleeps": sleeps is not None, "passed": follower.passed}
    verdict |= {"delay_s": sorted(follower.delays_s)[len(follower.delays_s) // 2]}
    say(json.dumps(verdict))


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(what: str, url: str, seed: str) -> None:
    if what in ("read", "replicate"):
        asyncio.run(read(url, int(seed)) if what == "read" else replicate(url))
        return
    over = threading.Event()
    writer = (Holder if what == "hold" else Writer)(url, int(seed))
    writing = threading.Thread(target=writer.run, args=[over])
    writing.start()
    say("ready")
    sys.stdin.read()
    over.set()
    writing.join(BOUND_S)
    if isinstance(writer, Holder):
        say(json.dumps(writer.held_s))


if __name__ == "__main__":
    main(*sys.argv[1:])
