"""`engine-pg locks break`: takes a lock from whoever holds it. Works on the database."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.console import Console

from engine_pg.cli.asking import who
from engine_pg.cluster.breaking import Broken, break_lock
from engine_pg.cluster.keys import LockKey
from engine_pg.db.database import Database
from engine_pg.db.urls import libpq_url
from engine_pg.settings import load_settings


def break_(
    kind: Annotated[str, typer.Argument(help="Kind of the lock, e.g. vm.")],
    id_: Annotated[str, typer.Argument(metavar="ID", help="Id within the kind.")],
    reason: Annotated[str, typer.Option(prompt=True, help="Why; it is kept in the audit event.")],
    token: Annotated[
        int | None, typer.Option(help="Only the grant under this token; without it, all.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Take a lock from whoever holds it: what runs under it is ended first."""
    key = LockKey(kind, id_)
    if not yes:
        typer.confirm(f"End what runs under {key}, and take its lock away?", abort=True)

    async def run() -> list[Broken]:
        url = libpq_url(load_settings().database_url.get_secret_value())
        async with Database(url, name="engine_pg locks", pool_max=1) as db:
            return await break_lock(db, key, by=who(), reason=reason, token=token)

    for broken in asyncio.run(run()):
        where = f"on {broken.node}" if broken.node else "which awaited an adopter"
        how = "its holder did not let go and lost it" if broken.forced else "its holder let go"
        Console().print(
            f"broken: {key}, {broken.mode}, token {broken.token}, {where}; {how}",
            highlight=False,
            markup=False,
        )
