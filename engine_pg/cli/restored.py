"""`engine-pg db restored`: what is to be done once the database went back to an earlier point."""

from __future__ import annotations

import asyncio
import getpass
import socket
from typing import Annotated

import typer
from rich.console import Console

from engine_pg.db.database import Database
from engine_pg.db.urls import libpq_url
from engine_pg.hosts.vdsm.client import VdsmDriver
from engine_pg.inventory.restored import Aftermath
from engine_pg.inventory.restored import restored as begin_anew
from engine_pg.settings import load_settings


def restored(
    reason: Annotated[str, typer.Option(help="Why; it is kept in the event.")] = "",
    above_epoch: Annotated[
        int,
        typer.Option(help="Begin above this epoch too, if you know that it was reached.", min=0),
    ] = 0,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Go on after a restore to an earlier point: ask the hosts, and begin an epoch above all.

    Commands that were open end with an unknown outcome, nodes join anew, everybody logs in anew.
    Monitoring then writes down what really runs. Run it once, after each restore or forced
    promotion that lost data; a database that lost nothing needs none of it.
    """
    if not yes:
        typer.confirm("Was this database restored, and did it lose what came after?", abort=True)

    async def run() -> Aftermath:
        url = libpq_url(load_settings().database_url.get_secret_value())
        async with Database(url, name="engine_pg restored", pool_max=4) as db:
            who = f"{getpass.getuser()}@{socket.gethostname()}"
            return await begin_anew(db, VdsmDriver, by=who, reason=reason, above=above_epoch)

    _show(asyncio.run(run()))


def _show(aftermath: Aftermath) -> None:
    console = Console(highlight=False, markup=False)
    console.print(
        f"epoch {aftermath.epoch} begins: {aftermath.commands} open commands ended with an unknown"
        f" outcome, {aftermath.members} members join anew, {aftermath.logins} logins ended"
    )
    for stranger in aftermath.strangers:
        console.print(f"unknown: VM {stranger.vm_id} runs on {stranger.host_name}", soft_wrap=True)
    for name in aftermath.silent:
        console.print(f"silent: {name} was not asked; what it has seen may be above this epoch")
