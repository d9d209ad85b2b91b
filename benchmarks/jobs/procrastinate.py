"""Procrastinate used plainly, in its best settings: no checks in its pool, and autocommit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

import procrastinate
import psycopg
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool

from benchmarks.jobs.contender import CONCURRENCY, Began, Client, Contender, Order

REMAINING: Final = """
select count(*)::integer as many from procrastinate_jobs where status in ('todo', 'doing')
"""
_Pool = AsyncConnectionPool[psycopg.AsyncConnection[DictRow]]


async def _configure(connection: psycopg.AsyncConnection[Any]) -> None:
    await connection.set_autocommit(True)


def _pool(url: str, size: int) -> _Pool:
    return AsyncConnectionPool(
        url,
        kwargs={"row_factory": dict_row},
        configure=_configure,
        min_size=size,
        max_size=size,
        open=False,
    )


def _app(url: str, began: Began) -> procrastinate.App:
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url))

    @app.task(name="nothing", queue="benchmark")
    async def nothing(number: int, hold_s: float) -> None:  # pyright: ignore[reportUnusedFunction] - registered
        began(number)
        if hold_s:
            await asyncio.sleep(hold_s)

    return app


class StockClient:
    """Defers one job at a time, as a request would."""

    def __init__(self, app: procrastinate.App, pool: _Pool) -> None:
        self._app = app
        self._pool = pool

    async def submit(self, order: Order) -> None:
        """Defer a job."""
        job = self._app.configure_task("nothing", queue="benchmark")
        await job.defer_async(number=order.number, hold_s=order.hold_s)

    async def remaining(self) -> int:
        """Count what is queued or runs."""
        async with self._pool.connection() as connection:
            row = await (await connection.execute(REMAINING)).fetchone()
        assert row is not None
        return row["many"]


@asynccontextmanager
async def _open(url: str) -> AsyncGenerator[Client]:
    app = _app(url, lambda _number: None)
    async with _pool(url, 10) as pool, app.open_async(pool):
        yield StockClient(app, pool)


async def _work(url: str, name: str, began: Began) -> None:
    app = _app(url, began)
    async with _pool(url, 4) as pool, app.open_async(pool):
        await app.run_worker_async(
            name=name,
            concurrency=CONCURRENCY,
            delete_jobs="successful",
            install_signal_handlers=False,
        )


async def _prepare(url: str) -> None:
    """Put its own schema in the place of ours, which has more to it."""
    async with await psycopg.AsyncConnection[DictRow].connect(url, autocommit=True) as connection:
        await connection.execute("drop schema public cascade")
        await connection.execute("create schema public")
    app = _app(url, lambda _number: None)
    async with app.open_async():
        await app.schema_manager.apply_schema_async()


STOCK: Final = Contender(
    "procrastinate",
    what="Procrastinate, its worker as it comes; pool without checks, autocommit, jobs deleted",
    recovers="nobody: a stalled job must be looked for and retried by the application",
    prepare=_prepare,
    open=_open,
    work=_work,
    by_itself=False,
)
