"""pgqueuer: batched dequeue and completion; a killed worker's job is picked again after 30 s."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any, Final

import psycopg
from psycopg.rows import DictRow, dict_row

from benchmarks.ground import Missing
from benchmarks.jobs.contender import CONCURRENCY, Began, Client, Contender, Order

REMAINING: Final = "select count(*)::integer as many from pgqueuer"
_BATCH: Final = CONCURRENCY // 2  # it wants room for two batches

_Connection = psycopg.AsyncConnection[DictRow]


def _package() -> Any:  # noqa: ANN401 - a package that need not be there
    try:
        return import_module("pgqueuer")
    except ImportError as missing:
        raise Missing("pgqueuer is not installed: make setup-bench") from missing


async def _connect(url: str) -> _Connection:
    return await psycopg.AsyncConnection[DictRow].connect(
        url, autocommit=True, row_factory=dict_row
    )


class PgqueuerClient:
    """Enqueues over a few connections, each used by one at a time."""

    def __init__(self, idle: asyncio.Queue[tuple[_Connection, Any]]) -> None:
        self._idle = idle

    async def submit(self, order: Order) -> None:
        """Enqueue a job."""
        pair = await self._idle.get()
        payload = json.dumps({"number": order.number, "hold_s": order.hold_s}).encode()
        await pair[1].enqueue("nothing", payload)
        self._idle.put_nowait(pair)

    async def remaining(self) -> int:
        """Count what is in the queue's table: what is done leaves it."""
        pair = await self._idle.get()
        row = await (await pair[0].execute(REMAINING)).fetchone()
        self._idle.put_nowait(pair)
        assert row is not None
        return row["many"]


@asynccontextmanager
async def _open(url: str) -> AsyncGenerator[Client]:
    package = _package()
    idle: asyncio.Queue[tuple[_Connection, Any]] = asyncio.Queue()
    connections = [await _connect(url) for _ in range(10)]
    for one in connections:
        idle.put_nowait((one, package.Queries(package.PsycopgDriver(one))))
    try:
        yield PgqueuerClient(idle)
    finally:
        for one in connections:
            await one.close()


async def _work(url: str, _name: str, began: Began) -> None:
    package = _package()
    async with await _connect(url) as connection:
        worker = package.PgQueuer.from_psycopg_connection(connection)
        register: Callable[[Callable[[Any], Awaitable[None]]], object]
        register = worker.entrypoint("nothing")

        async def nothing(job: Any) -> None:  # noqa: ANN401 - its own type
            given = json.loads(job.payload)
            began(given["number"])
            if given["hold_s"]:
                await asyncio.sleep(given["hold_s"])

        register(nothing)
        await worker.run(batch_size=_BATCH, max_concurrent_tasks=CONCURRENCY)


async def _prepare(url: str) -> None:
    package = _package()
    async with await _connect(url) as connection:
        await package.Queries(package.PsycopgDriver(connection)).install()


PGQUEUER: Final = Contender(
    "pgqueuer",
    what=f"pgqueuer on psycopg, batches of {_BATCH}; a job is an entry, without steps",
    recovers="another worker, after 30 s without a heartbeat (its default)",
    prepare=_prepare,
    open=_open,
    work=_work,
)
