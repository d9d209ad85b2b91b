"""A whole engine for oVirt's own SDK: PostgreSQL, two nodes, two simulated hosts."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine_pg.demo.stack import ADMIN, Options, Stack
from engine_pg.demo.state import StateFolder


@dataclass(frozen=True)
class Running:
    """Where a running stack is reached."""

    urls: list[str]
    host_ports: list[int]
    user: str
    password: str


def _serve(path: Path, started: Future[Running], stop: threading.Event) -> None:
    async def serve() -> None:
        state = StateFolder(path)
        async with Stack(state, Options(nodes=2, hosts=2), lambda _line: None) as stack:
            urls, ports = list(stack.urls), list(stack.host_ports)
            started.set_result(Running(urls, ports, ADMIN, state.admin_password()))
            await asyncio.to_thread(stop.wait)

    try:
        asyncio.run(serve())
    except BaseException as error:
        if started.done():
            raise
        started.set_exception(error)


@pytest.fixture(scope="session")
def stack(roomy_tmp: Path) -> Iterator[Running]:
    """Yield a running stack."""
    given = os.environ.pop("ENGINE_DATABASE_URL", None)  # a stack brings its own database
    started: Future[Running] = Future()
    stop = threading.Event()
    thread = threading.Thread(target=_serve, args=(roomy_tmp / "stack", started, stop))
    thread.start()
    try:
        yield started.result(timeout=100)
    finally:
        stop.set()
        thread.join()
        if given is not None:
            os.environ["ENGINE_DATABASE_URL"] = given


@pytest.fixture(scope="session")
def stack_urls(stack: Running) -> list[str]:
    """Yield the addresses of the nodes."""
    return [f"{url}/ovirt-engine/api" for url in stack.urls]
