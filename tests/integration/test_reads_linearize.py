"""A write that one node acknowledged is in every read that begins later, on any node.

Writers raise numbers, each its own, over a pool of their own; readers read views on several nodes;
everything is recorded with the one clock of this machine, and judged afterwards from the record
alone. Meanwhile the database restarts, or its standby takes over.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter, itemgetter
from uuid import UUID

import pytest
from integration.nodes import eventually, run
from integration.replicas import Readable, replica_of

from engine_pg.clock import boottime
from engine_pg.db.database import Database
from engine_pg.errors import DatabaseAway, EngineError, OutcomeUnknown
from engine_pg.inventory.rows import DataCenter
from engine_pg.supervisor import Background

ADD = "insert into data_center (data_center_id, name, comment) values (%(id)s, %(name)s, '0')"
WRITE = "update data_center set comment = %(n)s where data_center_id = %(id)s"
WRITERS, NODES, READERS = 4, 3, 3


@dataclass(frozen=True)
class Written:
    """A number that a writer wrote; `answered_at` is None when nobody knows whether it did."""

    who: UUID
    number: int
    begun_at: float
    answered_at: float | None


@dataclass(frozen=True)
class Seen:
    """What a read saw of each writer's number; `stale` reads promise nothing."""

    begun_at: float
    answered_at: float
    numbers: dict[UUID, int]
    stale: bool


@dataclass
class History:
    """All that happened, as the clients saw it."""

    writes: list[Written] = field(default_factory=list)
    reads: list[Seen] = field(default_factory=list)
    refused: dict[tuple[UUID, int], str] = field(default_factory=dict)

    @property
    def fresh(self) -> list[Seen]:
        return sorted((read for read in self.reads if not read.stale), key=attrgetter("begun_at"))

    def missed(self) -> list[Seen]:
        """Return each read that lacks a write that was acknowledged before it began."""
        known = [write for write in self.writes if write.answered_at is not None]
        told = ((write.answered_at, {write.who: write.number}) for write in known)
        return self._short_of(told)

    def turned_back(self) -> list[Seen]:
        """Return each read that shows less than one that ended before it began."""
        return self._short_of((read.answered_at, read.numbers) for read in self.fresh)

    def _short_of(self, told: Iterable[tuple[float, dict[UUID, int]]]) -> list[Seen]:
        """Return each read that shows less than what was told before it began."""
        coming = deque(sorted(told, key=itemgetter(0)))
        least: dict[UUID, int] = {}
        short: list[Seen] = []
        for read in self.fresh:
            while coming and coming[0][0] < read.begun_at:
                for who, number in coming.popleft()[1].items():
                    least[who] = max(number, least.get(who, 0))
            if any(read.numbers[who] < number for who, number in least.items()):
                short.append(read)
        return short

    def dreamt(self) -> list[Seen]:
        """Return each read that shows a number whose write had not begun when it ended."""
        begun = {(write.who, write.number): write.begun_at for write in self.writes}
        shown = {each for read in self.reads for each in read.numbers.items()}
        for each in shown & self.refused.keys():
            raise AssertionError(f"{each} was refused, and yet done: {self.refused[each]}")
        return [
            read
            for read in self.reads
            for who, number in read.numbers.items()
            if number and begun[who, number] > read.answered_at
        ]


async def write(db: Database, who: UUID, history: History, until: asyncio.Event) -> None:
    number = 0
    while not until.is_set():
        number += 1
        begun_at = boottime()
        try:
            await db.statement(WRITE, {"n": str(number), "id": who})
        except OutcomeUnknown:
            history.writes.append(Written(who, number, begun_at, None))
        except asyncio.CancelledError:  # the story is over: a statement under way still ends
            history.writes.append(Written(who, number, begun_at, None))
            raise
        except EngineError as error:
            history.refused[who, number] = repr(error)
            await asyncio.sleep(0.02)
        else:
            history.writes.append(Written(who, number, begun_at, boottime()))
        await asyncio.sleep(0)


async def read(node: Readable, history: History, until: asyncio.Event) -> None:
    while not until.is_set():
        begun_at = boottime()
        try:
            reading = await node.reads.take()
        except EngineError:
            continue
        numbers = {row.data_center_id: int(row.comment) for row in reading.view.of(DataCenter)}
        history.reads.append(Seen(begun_at, boottime(), numbers, reading.stale_s is not None))
        await asyncio.sleep(0.002)


async def recorded(
    urls: Sequence[str],
    hurt: Callable[[], Awaitable[None]],
    calm: Callable[[], None] = lambda: None,
) -> History:
    """Let writers and readers run, hurt the database in the middle, and return what they saw."""
    history, until = History(), asyncio.Event()
    async with AsyncExitStack() as stack:
        db = await stack.enter_async_context(Database(urls[0], pool_max=WRITERS, away_s=0.3))
        ids = [UUID(int=number) for number in range(1, WRITERS + 1)]
        for id_ in ids:
            await db.statement(ADD, {"id": id_, "name": f"d{id_.int}"})
        nodes = [
            await stack.enter_async_context(replica_of(url, ringing=n == 0, read_wait_s=1.0))
            for n, url in enumerate(urls)
        ]
        for node in nodes:
            await eventually(partial(is_fresh, node))
        background = await stack.enter_async_context(Background())
        for id_ in ids:
            background.start(write(db, id_, history, until), name="writer")
        for node in nodes * READERS:
            background.start(read(node, history, until), name="reader")
        await more(history)
        await hurt()
        await more(history)
        until.set()
        await asyncio.to_thread(calm)
    return history


async def is_fresh(node: Readable) -> bool:
    try:
        return (await node.reads.take()).stale_s is None
    except DatabaseAway:
        return False


async def more(history: History) -> None:
    """Wait until many more fresh reads and acknowledged writes have been recorded."""

    def counted() -> tuple[int, int]:
        acknowledged = sum(write.answered_at is not None for write in history.writes)
        return sum(not read.stale for read in history.reads), acknowledged

    reads, writes = counted()
    async with asyncio.timeout(40):
        while True:
            now_reads, now_writes = counted()
            if now_reads > reads + 200 and now_writes > writes + 100:
                return
            await asyncio.sleep(0.05)


def judge(history: History) -> None:
    assert history.missed() == []
    assert history.dreamt() == []
    assert history.turned_back() == []


@pytest.mark.parametrize("how", ["quiet", "restart", "failover"])
def test_reads_see_what_was_acknowledged_before_they_began(replicated, how):
    pair = replicated.pair

    async def hurt() -> None:
        if how == "restart":
            await asyncio.to_thread(pair.primary.crash)
        elif how == "failover":
            await asyncio.to_thread(pair.promote)

    async def scenario() -> None:
        judge(await recorded([replicated.url] * NODES, hurt))

    run(scenario(), 90)


def test_a_node_that_knows_the_old_primary_alone_does_not_call_its_reads_fresh(replicated):
    pair = replicated.pair

    async def scenario() -> None:
        with replicated.private_link() as (link, old):

            async def hurt() -> None:
                await asyncio.to_thread(pair.promote)

            judge(await recorded([replicated.url, old], hurt, calm=link.cut))

    run(scenario(), 90)


def test_the_judge_finds_what_is_wrong():
    one, two = UUID(int=1), UUID(int=2)
    history = History(
        [Written(one, 1, 1.0, 2.0), Written(two, 1, 1.0, None), Written(one, 2, 7.0, 8.0)],
        [
            Seen(3.0, 4.0, {one: 1, two: 1}, stale=False),
            Seen(5.0, 6.0, {one: 0, two: 0}, stale=False),
            Seen(5.0, 6.0, {one: 0, two: 0}, stale=True),
            Seen(5.0, 6.0, {one: 2, two: 1}, stale=False),
        ],
    )
    assert [read.numbers[one] for read in history.missed()] == [0]
    assert [read.numbers[one] for read in history.dreamt()] == [2]
    assert [read.numbers for read in history.turned_back()] == [{one: 0, two: 0}]
