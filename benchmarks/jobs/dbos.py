"""DBOS: durable workflows with durable steps, in threads; who recovers is the same executor."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any, Final
from urllib.parse import urlsplit

import psycopg
from psycopg.rows import DictRow, dict_row

from benchmarks.ground import Missing
from benchmarks.jobs.contender import CONCURRENCY, Began, Client, Contender, Order

REMAINING: Final = """
select count(*)::integer as many from dbos.workflow_status where status in ('ENQUEUED', 'PENDING')
"""
_QUEUE: Final = "benchmark"
_POLL_S: Final = 0.02
_VERSION: Final = "1"


def _package() -> Any:  # noqa: ANN401 - a package that need not be there
    try:
        return import_module("dbos")
    except ImportError as missing:
        raise Missing("dbos is not installed: make setup-bench") from missing


def _address(url: str) -> str:
    return urlsplit(url)._replace(scheme="postgresql+psycopg").geturl()


class DbosClient:
    """Enqueues from threads, over the client that it brings."""

    def __init__(self, client: Any, connection: psycopg.AsyncConnection[DictRow]) -> None:  # noqa: ANN401 - its own type
        self._client = client
        self._connection = connection

    async def submit(self, order: Order) -> None:
        """Enqueue a workflow."""
        options = {"queue_name": _QUEUE, "workflow_name": "nothing", "app_version": _VERSION}
        await self._client.enqueue_async(options, order.number, order.hold_s)

    async def remaining(self) -> int:
        """Count what is queued or runs."""
        row = await (await self._connection.execute(REMAINING)).fetchone()
        assert row is not None
        return row["many"]


@asynccontextmanager
async def _open(url: str) -> AsyncGenerator[Client]:
    package = _package()
    client = package.DBOSClient(system_database_url=_address(url), system_database_pool_size=10)
    opened = psycopg.AsyncConnection[DictRow].connect(url, autocommit=True, row_factory=dict_row)
    try:
        async with await opened as connection:
            yield DbosClient(client, connection)
    finally:
        client.destroy()


def _launch(url: str, name: str, began: Began) -> Any:  # noqa: ANN401 - its own type
    package = _package()
    config = {
        "name": "benchmark",
        "system_database_url": _address(url),
        "log_level": "ERROR",
        "executor_id": name,
        "application_version": _VERSION,
        "run_admin_server": False,
    }
    launched = package.DBOS(config=config)

    @package.DBOS.step(name="step")
    def step(number: int, hold_s: float) -> None:
        began(number)
        if hold_s:
            time.sleep(hold_s)

    @package.DBOS.workflow(name="nothing")
    def nothing(number: int, hold_s: float) -> None:  # pyright: ignore[reportUnusedFunction] - registered
        step(number, hold_s)

    package.DBOS.launch()
    package.DBOS.register_queue(
        _QUEUE, worker_concurrency=CONCURRENCY, polling_interval_sec=_POLL_S
    )
    return launched


async def _work(url: str, name: str, began: Began) -> None:
    await asyncio.to_thread(_launch, url, name, began)
    await asyncio.Event().wait()


async def _prepare(url: str) -> None:
    def prepare() -> None:
        package = _package()
        package.DBOS(
            config={
                "name": "benchmark",
                "system_database_url": _address(url),
                "log_level": "ERROR",
                "run_admin_server": False,
            }
        )
        package.DBOS.launch()
        package.DBOS.destroy()

    await asyncio.to_thread(prepare)


DBOS: Final = Contender(
    "dbos",
    what=f"DBOS workflows of one step on a queue polled each {_POLL_S} s, {CONCURRENCY} at once",
    recovers="the same executor when it is started again; another one only by a paid service",
    prepare=_prepare,
    open=_open,
    work=_work,
    by_itself=False,
)
