"""`engine-pg settings`: what all nodes go by. Works on the database; no node needs to run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Annotated

import typer
from rich.console import Console, RenderableType
from rich.table import Table

from engine_pg.cli import showing
from engine_pg.cli.asking import who
from engine_pg.cluster import looks
from engine_pg.configuration import definition, shown, store
from engine_pg.configuration.store import Author, Book
from engine_pg.db.database import Database
from engine_pg.db.tx import Tx
from engine_pg.db.urls import libpq_url
from engine_pg.settings import load_settings

app = typer.Typer(
    help="Show and change what all nodes go by; no node is restarted.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(help="Name of the setting, e.g. monitor_period_s.")]
Reason = Annotated[str, typer.Option(help="Why; it is kept in the history and the audit event.")]
Version = Annotated[
    int | None,
    typer.Option(help="Only if the setting is still at this version, as it was shown.", min=0),
]


@app.command(name="list")
def list_(
    changed: Annotated[
        bool, typer.Option("--changed", help="Only those that are not at their defaults.")
    ] = False,
    as_json: showing.AsJson = False,
) -> None:
    """List all settings: value, default, bounds, and who changed them last."""

    async def ask(tx: Tx) -> showing.Document:
        found = shown.settings(await store.read(tx))
        if changed:
            found["settings"] = [
                each for each in found["settings"] if each["value"] != each["default"]
            ]
        return found

    showing.Ways(as_json).show(ask, _listed)


@app.command()
def show(name: Name, as_json: showing.AsJson = False) -> None:
    """Show one setting, and what it is for."""

    async def ask(tx: Tx) -> showing.Document:
        return shown.setting(await store.read(tx), name)

    showing.Ways(as_json).show(ask, _one)


@app.command(name="set")
def set_(
    name: Name,
    value: Annotated[str, typer.Argument(help="Its new value.")],
    reason: Reason = "",
    if_version: Version = None,
    as_json: showing.AsJson = False,
) -> None:
    """Give a setting a value; every node goes by it within moments."""
    wanted = definition.read(name, value)
    _change(
        lambda tx: store.assign(tx, name, wanted, _author(reason), expected=if_version),
        name,
        as_json=as_json,
    )


@app.command()
def reset(
    name: Name, reason: Reason = "", if_version: Version = None, as_json: showing.AsJson = False
) -> None:
    """Give a setting its default back."""
    _change(
        lambda tx: store.reset(tx, name, _author(reason), expected=if_version),
        name,
        as_json=as_json,
    )


@app.command()
def history(
    name: Annotated[str | None, typer.Argument(help="Of this setting only.")] = None,
    most: showing.Max = 100,
    as_json: showing.AsJson = False,
) -> None:
    """List who changed what when, and why, the newest first."""

    async def ask(tx: Tx) -> showing.Document:
        return shown.history(await store.history(tx, name=name, most=most))

    showing.Ways(as_json).show(ask, _history)


def _change(work: Callable[[Tx], Awaitable[Book]], name: str, *, as_json: bool) -> None:
    async def run() -> Book:
        url = libpq_url(load_settings().database_url.get_secret_value())
        async with Database(url, name="engine_pg settings", pool_max=1) as db, db.write() as tx:
            await looks.check_migrated(tx)
            return await work(tx)

    document = shown.setting(asyncio.run(run()), name)
    if as_json:
        typer.echo(json.dumps(document, indent=2))
    else:
        said = f"{name} is {_text(document['value'])}, version {document['version']}"
        Console().print(said, highlight=False, markup=False)


def _author(reason: str) -> Author:
    return Author(who(), reason)


def _text(value: object) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _bounds(each: showing.Document) -> str:
    if each["enum"]:
        return ", ".join(each["enum"])
    return f"{_text(each['minimum'])} to {_text(each['maximum'])}"


def _listed(document: showing.Document) -> RenderableType:
    columns = ("name", ">value", ">default", "bounds", ">version", "changed by", "what for")
    rows = (
        (
            each["name"],
            showing.word(_text(each["value"]), good=each["value"] == each["default"]),
            _text(each["default"]),
            _bounds(each),
            each["version"],
            each["changed_by"] or "",
            each["description"],
        )
        for each in document["settings"]
    )
    shown_table = showing.table("All settings are at their defaults.", columns, rows)
    return showing.with_warnings(shown_table, document["warnings"])


def _one(document: showing.Document) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_row("value", _text(document["value"]))
    grid.add_row("default", _text(document["default"]))
    grid.add_row("bounds", _bounds(document))
    grid.add_row("version", str(document["version"]))
    if document["changed_at"]:
        grid.add_row("changed", f"{document['changed_at']} by {document['changed_by']}")
    grid.add_row("what for", document["description"])
    return grid


def _history(document: showing.Document) -> RenderableType:
    def told(value: object) -> str:
        return "default" if value is None else _text(value)

    rows = (
        (
            each["version"],
            each["changed_at"],
            each["name"],
            told(each["old_value"]),
            told(each["new_value"]),
            each["changed_by"],
            each["reason"],
        )
        for each in document["changes"]
    )
    columns = (">version", "when", "name", ">from", ">to", "who", "why")
    return showing.table("No setting was ever changed.", columns, rows)
