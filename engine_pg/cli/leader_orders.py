"""`engine-pg leaders pin | unpin | resign`: who is to lead what. Works on the database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer
from rich.console import Console

from engine_pg.cluster import orders
from engine_pg.db.database import Database
from engine_pg.db.urls import libpq_url
from engine_pg.settings import load_settings

T = TypeVar("T")

Name = Annotated[str, typer.Argument(help="Name of the leadership, e.g. monitor/07.")]


def _order(give: Callable[[Database], Awaitable[T]], said: str) -> None:
    async def run() -> None:
        url = libpq_url(load_settings().database_url.get_secret_value())
        async with Database(url, name="engine_pg leaders", pool_max=1) as db:
            await give(db)

    asyncio.run(run())
    Console().print(said, highlight=False, markup=False)


def pin(
    name: Name, node: Annotated[str, typer.Argument(help="Name of the node that is to lead.")]
) -> None:
    """Let a node lead whenever it is there and takes work; it is handed over within seconds."""
    _order(lambda db: orders.pin(db, name, node), f"{name} is pinned to {node}")


def unpin(name: Name) -> None:
    """Let a leadership go where placement puts it."""
    _order(lambda db: orders.unpin(db, name), f"{name} is pinned no more")


def resign(name: Name) -> None:
    """Ask whoever leads to hand over, and to leave it to others until it is restarted."""
    _order(lambda db: orders.ask_to_resign(db, name), f"who leads {name} was asked to resign")
