"""`engine-pg drain`: empties a node before maintenance. Works on the database.

It waits first until every leadership is where it belongs, so that nodes which are restarted one
after the other move each at most twice. From then on the node's /readyz answers 503; what runs is
finished. A restarted node is a new member, which takes work again.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Final, LiteralString

import typer
from rich.console import Console

from engine_pg.clock import boottime
from engine_pg.cluster import orders
from engine_pg.db.database import Database
from engine_pg.db.urls import libpq_url
from engine_pg.errors import Unavailable
from engine_pg.settings import load_settings

RUNNING: Final[LiteralString] = """
select (select count(*) from command c join member m using (member_id)
         where m.node = %(node)s and m.state = 'live' and c.ended_at is null)
     + (select count(*) from procrastinate_jobs j join member m on m.worker_id = j.worker_id
         where m.node = %(node)s and m.state = 'live' and j.status = 'doing') as count
"""
_POLL_S: Final = 0.1
_ALIKE: Final = 2  # looks in a row that find nothing: a job may be on its way at the first


def drain(
    node: Annotated[str, typer.Argument(help="Name of the node, e.g. node-1.")],
    undo: Annotated[bool, typer.Option("--undo", help="Let the node take work again.")] = False,
    wait: Annotated[
        bool,
        typer.Option(
            help="Wait until all is led where it belongs, and then until the node is empty."
        ),
    ] = True,
    timeout: Annotated[
        float, typer.Option(help="Longest wait in seconds; the node drains on.", min=0.0)
    ] = 120.0,
) -> None:
    """Empty a node before maintenance: it leads nothing, runs nothing, takes nothing new."""
    asyncio.run(_run(_Draining(node, wait=wait, bound_s=timeout), undo=undo))


async def _run(draining: _Draining, *, undo: bool) -> None:
    url = libpq_url(load_settings().database_url.get_secret_value())
    async with Database(url, name="engine_pg drain", pool_max=1) as db:
        if undo:
            await orders.drain(db, draining.node, on=False)
            draining.say(f"{draining.node} takes work again")
            return
        await draining.settle(db)
        await orders.drain(db, draining.node)
        draining.say(f"{draining.node} drains")
        await draining.empty(db)


class _Draining:
    """One node on its way to be empty, and what was said of it last."""

    def __init__(self, node: str, *, wait: bool, bound_s: float) -> None:
        self.node = node
        self._wait = wait
        self._deadline = boottime() + bound_s
        self._said = ""

    def say(self, text: str) -> None:
        """Say what is new."""
        if text != self._said:
            Console().print(text, highlight=False, markup=False)
        self._said = text

    async def settle(self, db: Database) -> None:
        """Wait until every leadership is where it belongs."""
        while self._wait and (names := (await orders.picture(db)).unsettled):
            self.say(f"{len(names)} leaderships are not where they belong yet: {names[0]} ...")
            await self._pause("the leaderships do not settle; the node was not drained")

    async def empty(self, db: Database) -> None:
        """Wait until the node leads nothing and runs nothing."""
        alike = 0
        while self._wait and alike < _ALIKE:
            left = await self._left(db)
            alike = 0 if left else alike + 1
            if left:
                self.say(f"{self.node} still {left}")
            await self._pause(f"{self.node} still {left}; it drains on")
        if self._wait:
            self.say(f"{self.node} is empty")

    async def _left(self, db: Database) -> str:
        """Return what the node still does; nothing: it is empty."""
        picture = await orders.picture(db)
        if self.node not in {each.node for each in picture.members}:
            return ""
        async with db.read() as tx:
            row = await tx.first(RUNNING, {"node": self.node})
        led, running = len(picture.led_by(self.node)), row["count"] if row else 0
        if self.node not in picture.heard:
            return "has not heard it"
        if led or running:
            return f"leads {led} and runs {running}"
        return ""

    async def _pause(self, overdue: str) -> None:
        if boottime() > self._deadline:
            raise Unavailable(overdue)
        await asyncio.sleep(_POLL_S)
