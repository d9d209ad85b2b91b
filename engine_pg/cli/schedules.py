"""`engine-pg schedules`: what happens at set times. Works on the database; no node needs to run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any, Final

import typer
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from engine_pg.cli import showing
from engine_pg.cli.asking import who
from engine_pg.cluster import looks
from engine_pg.configuration import store as settings
from engine_pg.configuration.store import Author
from engine_pg.db.database import Database
from engine_pg.db.tx import Tx
from engine_pg.db.urls import libpq_url
from engine_pg.errors import Invalid
from engine_pg.ids import new_id
from engine_pg.schedules import firing, runs, shown, store
from engine_pg.schedules.known import KNOWN
from engine_pg.schedules.rows import ScheduleRow
from engine_pg.settings import load_settings

app = typer.Typer(
    help="Show, change, pause and trigger what happens at set times; no node is restarted.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(help="Name of the schedule, e.g. trim-events.")]
Reason = Annotated[str, typer.Option(help="Why; it is kept in the audit event.")]
Version = Annotated[
    int | None,
    typer.Option(help="Only if the schedule is still at this version, as it was shown.", min=0),
]
_BAD: Final = frozenset({"failed", "unknown", "cancelled", "dead"})
Work = Callable[[Tx], Awaitable[ScheduleRow | None]]


@app.command(name="list")
def list_(as_json: showing.AsJson = False) -> None:
    """List all schedules: when they fire next and fired last; and the loops that are none."""

    async def ask(tx: Tx) -> showing.Document:
        book = await settings.read(tx)
        return shown.schedules(await store.listed(tx), book.settings)

    showing.Ways(as_json).show(ask, _listed)


@app.command()
def show(name: Name, as_json: showing.AsJson = False) -> None:
    """Show one schedule."""

    async def ask(tx: Tx) -> showing.Document:
        return shown.schedule(await store.get(tx, name))

    showing.Ways(as_json).show(ask, _one)


@app.command(name="set")
def set_(
    name: Name,
    fields: Annotated[
        list[str],
        typer.Argument(
            metavar="FIELD=VALUE...",
            help="What is to be so: cron, every_s, zone, work, command, subject_id, params (JSON),"
            " starts_at, ends_at, jitter_s, misfire (fire_once, fire_all, skip), grace_s, overlap"
            " (allow, skip, queue_one), keep_runs, description. An empty value takes it away.",
        ),
    ],
    reason: Reason = "",
    if_version: Version = None,
    as_json: showing.AsJson = False,
) -> None:
    """Add a schedule, or change the fields that are given; the others stay."""
    values = dict(_field(each) for each in fields)
    _change(
        lambda tx: store.assign(tx, name, values, _author(reason), KNOWN, expected=if_version),
        as_json=as_json,
    )


@app.command()
def pause(name: Name, reason: Reason = "", as_json: showing.AsJson = False) -> None:
    """Let a schedule fire no more until it is resumed."""
    _change(lambda tx: store.pause(tx, name, _author(reason), paused=True), as_json=as_json)


@app.command()
def resume(name: Name, reason: Reason = "", as_json: showing.AsJson = False) -> None:
    """Let a paused schedule fire again, from now on."""
    _change(lambda tx: store.pause(tx, name, _author(reason), paused=False), as_json=as_json)


@app.command()
def remove(
    name: Name, reason: Reason = "", if_version: Version = None, as_json: showing.AsJson = False
) -> None:
    """Remove a schedule; one of the engine's own gets its default back."""
    _change(
        lambda tx: store.remove(tx, name, _author(reason), expected=if_version),
        as_json=as_json,
    )


@app.command()
def trigger(name: Name, as_json: showing.AsJson = False) -> None:
    """Fire a schedule now, paused or not; its overlap policy holds."""

    async def fire() -> showing.Document:
        async with _database() as db:
            return shown.run(await firing.triggered(db, name, new_id(), who(), KNOWN))

    run = asyncio.run(fire())
    _say(run, f"{name} fired: run {run['run_id']} is {run['state']}", as_json=as_json)


@app.command()
def history(
    name: Annotated[str | None, typer.Argument(help="Of this schedule only.")] = None,
    most: showing.Max = 100,
    as_json: showing.AsJson = False,
) -> None:
    """List runs, the newest first: what fired when and where, and what became of it."""

    async def ask(tx: Tx) -> showing.Document:
        if name is not None:
            await store.get(tx, name)
        return shown.history(await runs.history(tx, schedule=name, most=most))

    showing.Ways(as_json).show(ask, _history)


def _database() -> Database:
    url = libpq_url(load_settings().database_url.get_secret_value())
    return Database(url, name="engine_pg schedules", pool_max=1)


def _change(work: Work, *, as_json: bool) -> None:
    async def run() -> ScheduleRow | None:
        async with _database() as db, db.write() as tx:
            await looks.check_migrated(tx)
            return await work(tx)

    changed = asyncio.run(run())
    if changed is None:
        _say({}, "it is gone", as_json=as_json)
        return
    document = shown.schedule(changed)
    said = f"{changed.name} is at version {changed.version}, {_next(document)}"
    _say(document, said, as_json=as_json)


def _say(document: showing.Document, text: str, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(document, indent=2))
    else:
        Console().print(text, highlight=False, markup=False)


def _author(reason: str) -> Author:
    return Author(who(), reason)


def _field(text: str) -> tuple[str, Any]:
    """Return a field and its value out of `field=value`."""
    name, equals, value = text.partition("=")
    if not equals:
        raise Invalid(f"{text[:60]!r} should be FIELD=VALUE, e.g. every_s=600")
    if name != "params" or not value:
        return name, value or None
    try:
        return name, json.loads(value)
    except ValueError as error:
        raise Invalid(f"params should be a JSON object: {error}") from error


def _next(each: showing.Document) -> str:
    if each["paused"]:
        return "paused"
    if each["problem"]:
        return "set aside"
    return f"next due {_moment(each['due_at'])}" if each["due_at"] else "fires no more"


def _moment(text: str | None) -> str:
    return "" if text is None else f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M:%S}Z"


def _when(each: showing.Document) -> str:
    if each["cron"]:
        return f"{each['cron']} ({each['zone']})"
    return f"each {each['every_s']:.12g} s"


def _listed(document: showing.Document) -> RenderableType:
    columns = ("name", "when", "next", "fired last", ">fired", ">skipped", "runs", "what for")
    rows = (
        (
            each["name"],
            _when(each),
            showing.word(_next(each), good=not (each["paused"] or each["problem"])),
            _moment(each["last_fired_at"]),
            each["fired"],
            each["skipped"],
            each["work"] or each["command"],
            each["description"],
        )
        for each in document["schedules"]
    )
    loops = (
        (each["name"], f"each {each['every_s']:.12g} s", each["where"], each["description"])
        for each in document["loops"]
    )
    return Group(
        showing.table("There are no schedules yet; a node declares its own.", columns, rows),
        Text("Loops, which are no schedules:"),
        showing.table("None.", ("name", "when", "where", "what for"), loops),
    )


def _one(document: showing.Document) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_row("when", _when(document))
    grid.add_row("next", _next(document))
    for key, value in document.items():
        if key not in ("name", "cron", "every_s", "zone") and value not in (None, "", {}):
            grid.add_row(key, _moment(value) if key.endswith("_at") else str(value))
    return grid


def _history(document: showing.Document) -> RenderableType:
    rows = (
        (
            _moment(each["due_at"]),
            each["schedule"],
            each["cause"],
            each["ticks"],
            showing.word(each["state"], good=each["state"] not in _BAD),
            _moment(each["fired_at"]),
            each["fired_by"],
            each["node"] or "",
            _took(each),
            each["reason"] or each["outcome"],
        )
        for each in document["runs"]
    )
    columns = (
        *("due", "schedule", "cause", ">ticks", "state", "fired", "by", "ran on", ">took"),
        "what of it",
    )
    return showing.table("Nothing has fired yet.", columns, rows)


def _took(each: showing.Document) -> str:
    if each["started_at"] is None or each["ended_at"] is None:
        return ""
    ended, started = map(datetime.fromisoformat, (each["ended_at"], each["started_at"]))
    return showing.seconds((ended - started).total_seconds())
