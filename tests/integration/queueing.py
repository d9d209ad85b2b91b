"""The queue's worker for tests: the real one, on a real PostgreSQL, with commands of the test's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import UUID

import psycopg
from integration.nodes import eventually
from links import Link
from psycopg.rows import dict_row

from engine_pg.clock import boottime
from engine_pg.db.listener import QUEUE, Doorbells
from engine_pg.db.queue import serve_jobs
from engine_pg.ids import new_id

if TYPE_CHECKING:
    from collections.abc import Iterator

PLACES = {"commands": 4, "urgent": 2}
DEFER = """
insert into procrastinate_jobs (queue_name, task_name, priority, args)
values (%(queue)s, 'run_command', %(priority)s, jsonb_build_object('command_id', %(id)s::text))
"""


class Queue:
    """One worker, and what it ran: `begun` and `ended`, in order; `held` commands wait."""

    def __init__(self, url: str, direct_url: str) -> None:
        self.bells = Doorbells(url)
        self.begun: list[UUID] = []
        self.began_at: dict[UUID, float] = {}
        self.ended: list[UUID] = []
        self.workers: list[int] = []
        self.accepting = True
        self.serving: asyncio.Task[None] | None = None
        self._url = url
        self._direct_url = direct_url
        self._held: dict[UUID, asyncio.Event] = {}

    async def connect(self) -> None:
        """Connect for what the test itself does, not over the worker's connections."""
        self._direct = await psycopg.AsyncConnection.connect(
            self._direct_url, autocommit=True, row_factory=dict_row
        )

    async def close(self) -> None:
        await self._direct.close()

    async def run_command(self, command_id: UUID) -> None:
        self.begun.append(command_id)
        self.began_at.setdefault(command_id, boottime())
        if command_id in self._held:
            await self._held[command_id].wait()
        self.ended.append(command_id)

    async def registered(self, worker_id: int) -> None:
        self.workers.append(worker_id)

    async def serve(self, places: Mapping[str, int] = PLACES) -> None:
        await serve_jobs(
            self._url,
            self.run_command,
            places=places,
            registered=self.registered,
            bell=self.bells.bell(QUEUE),
            accepting=lambda: self.accepting,
        )

    async def defer(
        self, many: int = 1, *, queue: str = "commands", priority: int = 0, held: bool = False
    ) -> list[UUID]:
        """Put jobs into the queue, not over the worker's connections."""
        ids = [new_id() for _ in range(many)]
        if held:
            self._held.update({each: asyncio.Event() for each in ids})
        for each in ids:
            params = {"queue": queue, "priority": priority, "id": each}
            await self._direct.execute(DEFER, params)
        return ids

    def release(self, *ids: UUID) -> None:
        for each in ids:
            self._held[each].set()

    async def has_begun(self, *ids: UUID, bound_s: float = 10.0) -> None:
        async def all_begun():
            return set(ids) <= set(self.begun)

        await eventually(all_begun, bound_s)

    async def jobs(self, status: str = "") -> list[dict]:
        cursor = await self._direct.execute(
            "select * from procrastinate_jobs where status::text = %(status)s or %(status)s = ''",
            {"status": status},
        )
        return await cursor.fetchall()

    async def none_left(self, bound_s: float = 10.0) -> None:
        async def none():
            return not await self.jobs()

        await eventually(none, bound_s)

    async def ask(self, query, **params) -> list[dict]:
        cursor = await self._direct.execute(query, params)
        return await cursor.fetchall() if cursor.description else []


@asynccontextmanager
async def queue(
    url: str, direct_url: str | None = None, *, places: Mapping[str, int] = PLACES
) -> AsyncGenerator[Queue]:
    """Run a worker for the block."""
    one = Queue(url, direct_url or url)
    await one.connect()
    await one.ask("delete from procrastinate_jobs")
    async with asyncio.TaskGroup() as group:
        ringing = group.create_task(one.bells.run())
        one.serving = group.create_task(one.serve(places))

        async def registered():
            return one.workers

        try:
            await eventually(registered)
            yield one
        finally:
            one.serving.cancel()
            await asyncio.wait([one.serving])
            ringing.cancel()
            await one.close()


@contextmanager
def linked(url: str) -> Iterator[tuple[Link, str]]:
    """Yield a link to the server of an address, and the address behind it."""
    parts = urlsplit(url)
    assert parts.port is not None
    link = Link(parts.port)
    place = parts.netloc.rpartition("@")[0]
    try:
        yield link, parts._replace(netloc=f"{place}@127.0.0.1:{link.port}").geturl()
    finally:
        link.close()
