"""Events' numbers: each seen with all lower ones before it, whoever writes, without turns."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import psycopg
from integration.nodes import eventually, run
from integration.replicas import replica_of

from engine_pg.cluster.topics import CHANGES
from engine_pg.inventory.numbering import NUMBER, Numbering
from engine_pg.inventory.rows import Event
from engine_pg.supervisor import Background

APPEND = "insert into event_inbox (code, description) values (1, %s)"
WAITING = "select 1 from pg_stat_activity where pid = %s and wait_event_type = 'Lock'"
TOLD = "select description from event order by event_id"


async def connected(url) -> psycopg.AsyncConnection:
    return await psycopg.AsyncConnection.connect(url, autocommit=True)


def test_a_writer_that_stays_open_delays_only_its_own_event(fresh_database_url):
    async def scenario():
        async with (
            await connected(fresh_database_url) as slow,
            await connected(fresh_database_url) as quick,
        ):
            async with slow.transaction():
                await slow.execute(APPEND, ["slow"])
                await asyncio.wait_for(quick.execute(APPEND, ["quick"]), 2)
                await quick.execute(NUMBER)
                assert await (await quick.execute(TOLD)).fetchall() == [("quick",)]
            await quick.execute(NUMBER)
            assert await (await quick.execute(TOLD)).fetchall() == [("quick",), ("slow",)]

    run(scenario())


WRITERS, EACH = 6, 40


async def write(url, name: str) -> None:
    async with await connected(url) as connection:
        for number in range(EACH):
            async with connection.transaction(force_rollback=number % 7 == 6):
                await connection.execute(APPEND, [f"{name}-{number}"])
                await asyncio.sleep(0.001 * (number % 3))


async def move(url) -> None:
    async with await connected(url) as connection:
        while True:
            await connection.execute(NUMBER)
            await asyncio.sleep(0)


@dataclass
class Poller:
    """Somebody who polls from the last number that he saw, as oVirt's clients do."""

    connection: psycopg.AsyncConnection
    last: int = 0
    got: list[str] = field(default_factory=list)

    async def poll(self) -> int:
        query = "select event_id, description from event where event_id > %s order by event_id"
        for event in await (await self.connection.execute(query, [self.last])).fetchall():
            self.last = event[0]
            self.got.append(event[1])
        await asyncio.sleep(0)
        return len(self.got)


def test_no_number_is_seen_before_a_lower_one(fresh_database_url):
    committed = {f"w{w}-{n}" for w in range(WRITERS) for n in range(EACH) if n % 7 != 6}

    async def scenario():
        async with await connected(fresh_database_url) as connection, Background() as background:
            poller = Poller(connection)
            for number in range(3):
                background.start(move(fresh_database_url), name=f"mover {number}")
            async with asyncio.TaskGroup() as group:
                names = [f"w{number}" for number in range(WRITERS)]
                running = [group.create_task(write(fresh_database_url, name)) for name in names]
                while not all(one.done() for one in running):
                    await poller.poll()

            async def all_came() -> bool:
                return await poller.poll() >= len(committed)

            await eventually(all_came)
            assert len(poller.got) == len(set(poller.got))
            assert set(poller.got) == committed

    run(scenario())


def test_a_node_of_the_release_before_has_its_turn(fresh_database_url):
    async def scenario():
        async with (
            await connected(fresh_database_url) as old,
            await connected(fresh_database_url) as new,
            await connected(fresh_database_url) as reader,
        ):
            await new.execute(APPEND, ["new"])
            async with Background() as background:
                async with old.transaction():
                    await old.execute("select pg_advisory_xact_lock(7005, 0)")
                    await old.execute("insert into event (code, description) values (1, 'old')")
                    moving = background.start(new.execute(NUMBER), name="mover")

                    async def waits() -> bool:
                        found = await reader.execute(WAITING, [new.info.backend_pid])
                        return await found.fetchone() is not None

                    await eventually(waits)
                    assert await (await reader.execute(TOLD)).fetchall() == []
                await moving
            assert await (await reader.execute(TOLD)).fetchall() == [("old",), ("new",)]

    run(scenario())


def test_who_reads_sees_every_event_that_was_committed_before(fresh_database_url):
    async def scenario():
        async with (
            replica_of(fresh_database_url) as node,
            await connected(fresh_database_url) as writer,
        ):
            numbering = Numbering(node.db, node.bells)
            for number in range(20):
                await writer.execute(APPEND, [str(number)])
                await numbering.caught_up()
                newest = next(iter((await node.replica.passed()).of(Event)))
                assert newest.description == str(number)

    run(scenario())


def test_what_nobody_reads_gets_its_number_too(fresh_database_url):
    async def scenario():
        async with (
            replica_of(fresh_database_url, poll_s=60) as node,
            await connected(fresh_database_url) as writer,
            Background() as background,
        ):
            rung = node.bells.bell(CHANGES)
            background.start(Numbering(node.db, node.bells).run(), name="numbers")
            await writer.execute(APPEND, ["left behind"])

            async def is_numbered() -> bool:
                return await (await writer.execute(TOLD)).fetchall() == [("left behind",)]

            await eventually(is_numbered)
            assert await rung.wait(5)

    run(scenario())
