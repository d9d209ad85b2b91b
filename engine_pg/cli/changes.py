"""`engine-pg changes`: what changes in the cluster, as its nodes tell it over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.text import Text

from engine_pg.cli import showing
from engine_pg.cli.events import Changes, Event, Wanted
from engine_pg.cli.passwords import PasswordFile, password_in
from engine_pg.cluster import looks
from engine_pg.db.database import Database
from engine_pg.db.urls import libpq_url
from engine_pg.errors import Unavailable
from engine_pg.settings import load_settings

_SHOWN: Final = ("name", "status", "value", "state", "description")


def changes(
    follow: Annotated[bool, typer.Option("--follow", help="Go on until Ctrl-C.")] = False,
    topics: Annotated[
        list[str] | None, typer.Option("--topic", help="Of this topic, e.g. vm; may be repeated.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            help="A cursor; now; or start: all that is kept. Without it start, with --follow now."
        ),
    ] = None,
    url: Annotated[
        list[str] | None,
        typer.Option(help="A node's URL; may be repeated. Without it the database tells them."),
    ] = None,
    user: Annotated[str, typer.Option(help="Who logs in.")] = "admin@internal",
    password_file: PasswordFile = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="A line of JSON for each change, with its cursor.")
    ] = False,
) -> None:
    """Show what changes; each line's cursor is a place to go on from, at any node."""
    wanted = Wanted(since or ("now" if follow else "start"), topics or (), follow)
    nodes = Changes(url or asyncio.run(_urls()), user, password_in(password_file))
    show = _show_json if as_json else _show
    try:
        asyncio.run(_run(nodes, wanted, show))
    except KeyboardInterrupt:
        if not follow:
            raise
    if not as_json and nodes.cursor:
        Console(stderr=True).print(
            f"go on with --since {nodes.cursor}", highlight=False, markup=False, soft_wrap=True
        )


async def _run(nodes: Changes, wanted: Wanted, show: Callable[[Event], None]) -> None:
    async with aclosing(nodes.events(wanted)) as events:
        async for event in events:
            show(event)


async def _urls() -> Sequence[str]:
    url = libpq_url(load_settings().database_url.get_secret_value())
    async with Database(url, name="engine_pg changes", pool_max=1) as db, db.read() as tx:
        found = [each.address for each in await looks.members(tx) if each.state == "live"]
    if not found:
        raise Unavailable("no node lives; name one by --url")
    return found


def _show_json(event: Event) -> None:
    kind = {"resync": event.data["reason"]} if event.kind == "resync" else event.data
    typer.echo(json.dumps({"cursor": event.cursor} | kind))


def _show(event: Event) -> None:
    data = event.data
    if event.kind == "resync":
        said = showing.word(f"take a new copy: {data['reason']}", good=False)
    else:
        row: showing.Document = data["row"] or {}
        about = " ".join(f"{name}={row[name]}" for name in _SHOWN if row.get(name))
        said = Text(f"{data['at'][:23]} {data['topic']} {data['key']} {data['op']} {about}")
    Console(highlight=False).print(said, soft_wrap=True)
