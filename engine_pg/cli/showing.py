"""How a command shows a document: as a table, as JSON, or again and again until Ctrl-C.

It looks at the database itself, so that it works while no node does.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer
from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from engine_pg.cluster import looks
from engine_pg.db.database import Database
from engine_pg.db.tx import Tx
from engine_pg.db.urls import libpq_url
from engine_pg.errors import EngineError
from engine_pg.settings import load_settings

Document = dict[str, Any]
Ask = Callable[[Tx], Awaitable[Document]]
Render = Callable[[Document], RenderableType]

AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON, with keys that stay.")]
Watch = Annotated[bool, typer.Option("--watch", help="Show it again and again until Ctrl-C.")]
Every = Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds between looks of --watch.")]
Max = Annotated[int, typer.Option("--max", min=1, max=looks.MOST, help="At most so many rows.")]
Node = Annotated[str | None, typer.Option(help="Of this node only.")]

EVERY_S: Final = 2.0
_PIPED_COLUMNS: Final = 240
_TOKEN_BITS: Final = 40  # of a fencing token; the epoch stands above them


@dataclass(frozen=True, slots=True)
class Ways:
    """How the caller wants it shown."""

    as_json: bool = False
    watch: bool = False
    every_s: float = EVERY_S

    def show(self, ask: Ask, render: Render) -> None:
        """Ask the database that the settings name, and show the answer."""
        url = libpq_url(load_settings().database_url.get_secret_value())
        logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # one sentence is enough
        try:
            asyncio.run(self._shown(url, ask, render))
        except KeyboardInterrupt:
            if not self.watch:
                raise

    async def _shown(self, url: str, ask: Ask, render: Render) -> None:
        async with Database(url, name="engine_pg look", pool_max=1) as db:
            document = await _asked(db, ask)
            if not self.watch:
                self._print(_console(), document, render)
            elif self.as_json:
                await self._print_again(db, ask, document)
            else:
                await self._live(db, ask, render, document)

    def _print(self, console: Console, document: Document, render: Render) -> None:
        if self.as_json:
            typer.echo(json.dumps(document, indent=2))
        else:
            console.print(render(document))

    async def _print_again(self, db: Database, ask: Ask, document: Document) -> None:
        while True:
            typer.echo(json.dumps(document))  # a line for each look, for programs to read
            await asyncio.sleep(self.every_s)
            document = await _asked(db, ask)

    async def _live(self, db: Database, ask: Ask, render: Render, document: Document) -> None:
        console = _console()
        with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
            shown = render(document)
            while True:
                live.update(shown, refresh=True)
                await asyncio.sleep(self.every_s)
                try:
                    shown = render(await _asked(db, ask))
                except EngineError as error:
                    shown = Text(str(error), style="red")


async def _asked(db: Database, ask: Ask) -> Document:
    async with db.read() as tx:
        await looks.check_migrated(tx)
        return await ask(tx)


def _console() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPED_COLUMNS
    return console


def table(nothing: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> RenderableType:
    """Return a table, or a sentence when it has no rows; a column named `>n` stands right."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        right = column.startswith(">")
        made.add_column(column.lstrip(">"), justify="right" if right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(each if isinstance(each, Text) else Text(str(each)) for each in row))
    return made if made.row_count else Text(nothing)


def with_warnings(shown: RenderableType, warnings: Sequence[str]) -> RenderableType:
    """Return what is shown with sentences of warning below."""
    lines = [Text(f"Warning: {warning}.", style="yellow") for warning in warnings]
    return Group(shown, *lines) if lines else shown


def word(text: str, *, good: bool) -> Text:
    """Return a word, yellow when it is not as it should be."""
    return Text(text, style="green" if good else "yellow")


def seconds(value: float | None) -> str:
    """Return a duration for people."""
    if value is None:
        return ""
    if value < 120:
        return f"{max(0.0, value):.1f} s"
    minutes = int(value // 60)
    if minutes < 120:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h" if hours < 48 else f"{hours // 24} d"


def token(value: int | None) -> str:
    """Return a fencing token as epoch and number."""
    return "" if value is None else f"{value >> _TOKEN_BITS}.{value % (1 << _TOKEN_BITS)}"


def purpose(row: Document) -> str:
    """Return what a lock is held or wanted for: the command, or else the reason."""
    return row.get("command") or row["reason"] or ""
