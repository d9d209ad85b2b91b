"""Callers that are served together: each by a statement that began after he asked."""

from __future__ import annotations

import asyncio

import pytest

from engine_pg.db.gathered import MOST, Gathered
from engine_pg.errors import DatabaseAway, Invalid


class Server:
    """Answers each key by itself and keeps what came together; `go` lets it answer."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = asyncio.Event()

    async def work(self, keys):
        self.batches.append(list(keys))
        await self.go.wait()
        if -1 in keys:
            raise Invalid("one of them is wrong")
        if -2 in keys:
            raise DatabaseAway("gone")
        return [10 * key for key in keys]


async def asking(gathered: Gathered, *keys: int) -> list[asyncio.Task]:
    tasks = [asyncio.ensure_future(gathered.ask(key)) for key in keys]
    await asyncio.sleep(0)
    return tasks


async def answers(tasks) -> list[object]:
    await asyncio.wait(tasks)
    return [
        "cancelled" if task.cancelled() else task.exception() or task.result() for task in tasks
    ]


def test_what_comes_while_one_is_under_way_goes_with_the_next():
    async def story():
        server = Server()
        gathered = Gathered(server.work)
        tasks = await asking(gathered, 1) + await asking(gathered, 2, 3, 4)
        server.go.set()
        assert await answers(tasks) == [10, 20, 30, 40]
        assert server.batches == [[1], [2, 3, 4]]
        assert await gathered.ask(5) == 50

    asyncio.run(story())


def test_no_statement_takes_more_than_so_many():
    async def story():
        server = Server()
        gathered = Gathered(server.work)
        tasks = await asking(gathered, 0) + await asking(gathered, *range(1, MOST + 50))
        server.go.set()
        assert await answers(tasks) == [10 * key for key in range(MOST + 50)]
        assert [len(batch) for batch in server.batches] == [1, MOST, 49]

    asyncio.run(story())


def test_only_the_wrong_one_of_several_fails():
    async def story():
        server = Server()
        gathered = Gathered(server.work)
        tasks = await asking(gathered, 1) + await asking(gathered, 2, -1, 3)
        server.go.set()
        told = await answers(tasks)
        assert told[:2] + told[3:] == [10, 20, 30]
        assert isinstance(told[2], Invalid)

    asyncio.run(story())


def test_an_absent_server_is_everybodys_error_and_is_asked_once():
    async def story():
        server = Server()
        gathered = Gathered(server.work)
        tasks = await asking(gathered, 1) + await asking(gathered, 2, -2)
        server.go.set()
        told = await answers(tasks)
        assert told[0] == 10
        assert all(isinstance(each, DatabaseAway) for each in told[1:])
        assert len(server.batches) == 2

    asyncio.run(story())


@pytest.mark.parametrize("victim", [0, 1, 2, 3])
def test_who_is_cancelled_leaves_the_others_served(victim):
    async def story():
        server = Server()
        gathered = Gathered(server.work)
        tasks = await asking(gathered, 0) + await asking(gathered, 1, 2, 3)
        tasks[victim].cancel()
        await asyncio.sleep(0)
        server.go.set()
        told = await answers(tasks)
        assert told.pop(victim) == "cancelled"
        assert told == [10 * key for key in range(4) if key != victim]
        assert await gathered.ask(7) == 70

    asyncio.run(story())


def test_who_is_cancelled_when_his_turn_comes_hands_it_on():
    async def story():
        server = Server()
        tasks: list[asyncio.Task] = []

        async def work(keys):
            told = await server.work(keys)
            if keys == [0]:  # before the second runs, who is told now that it is his turn
                asyncio.get_running_loop().call_soon(tasks[1].cancel)
            return told

        gathered = Gathered(work)
        tasks += await asking(gathered, 0) + await asking(gathered, 1, 2)
        server.go.set()
        assert await answers(tasks) == [0, "cancelled", 20]
        assert server.batches == [[0], [2]]

    asyncio.run(story())
