"""`engine-pg commands`: what the engine was asked to do. Works on the database alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Annotated, Final
from uuid import UUID

import typer
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from engine_pg.cli import showing
from engine_pg.cli.asking import who
from engine_pg.clock import boottime
from engine_pg.cluster import looks
from engine_pg.commands import listed, store
from engine_pg.commands.desk import Desk
from engine_pg.commands.registry import REGISTRY
from engine_pg.commands.rows import CommandView
from engine_pg.db.database import Database
from engine_pg.db.tx import Tx
from engine_pg.db.urls import libpq_url
from engine_pg.settings import load_settings

app = typer.Typer(
    help="List what the engine was asked to do, and how far it is; cancel it, or try it again.",
    no_args_is_help=True,
)

Id = Annotated[UUID, typer.Argument(metavar="ID", help="Id of the command; also that of its job.")]
Wait = Annotated[float, typer.Option(help="Longest wait for its end, in seconds.", min=0.0)]
_POLL_S: Final = 0.1


@app.command(name="list")
def list_(
    state: Annotated[
        str | None, typer.Option(help=f"In this state only: {', '.join(listed.STATES)}.")
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Only those that have not ended.")] = False,
    node: showing.Node = None,
    subject: Annotated[UUID | None, typer.Option(help="About the entity of this id only.")] = None,
    user: Annotated[str | None, typer.Option(help="Of this user only.")] = None,
    most: showing.Max = 100,
    as_json: showing.AsJson = False,
    watch: showing.Watch = False,
    every: showing.Every = showing.EVERY_S,
) -> None:
    """List commands, the newest first."""
    showing.Ways(as_json, watch, every).show(
        lambda tx: listed.commands(
            tx, state=state, open_=open_, node=node, subject_id=subject, user_name=user, most=most
        ),
        lambda document: _table(document["commands"]),
    )


@app.command()
def show(
    id_: Id,
    as_json: showing.AsJson = False,
    watch: showing.Watch = False,
    every: showing.Every = showing.EVERY_S,
) -> None:
    """Show one command: its steps, its children, its error."""
    showing.Ways(as_json, watch, every).show(lambda tx: listed.command(tx, id_), _one)


@app.command()
def cancel(id_: Id, wait: Wait = 10.0, as_json: showing.AsJson = False) -> None:
    """Cancel a command: what it did is reversed. Refused when it began what is not taken back."""

    async def ask(tx: Tx) -> CommandView:
        return await Desk(REGISTRY).cancel(tx, id_, by=who())

    document = asyncio.run(_asked(ask, wait))
    _tell(document, as_json=as_json)
    if document["state"] != "cancelled":
        raise typer.Exit(1)


@app.command()
def retry(id_: Id, wait: Wait = 0.0, as_json: showing.AsJson = False) -> None:
    """Submit a command anew that ended without success; once: its second time is the same one."""

    async def ask(tx: Tx) -> CommandView:
        return await Desk(REGISTRY).retry(tx, id_, by=who())

    _tell(asyncio.run(_asked(ask, wait)), as_json=as_json)


async def _asked(ask: Callable[[Tx], Awaitable[CommandView]], wait_s: float) -> showing.Document:
    """Ask for something of a command, and return it once it has ended, or after a while."""
    url = libpq_url(load_settings().database_url.get_secret_value())
    async with Database(url, name="engine_pg commands", pool_max=1) as db:
        async with db.write() as tx:
            await looks.check_migrated(tx)
            command = await ask(tx)
        deadline = boottime() + wait_s
        while not command.final and boottime() < deadline:
            await asyncio.sleep(_POLL_S)
            async with db.read() as tx:
                command = await store.view(tx, command.command_id)
        async with db.read() as tx:
            return await listed.command(tx, command.command_id)


def _tell(document: showing.Document, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(document, indent=2))
        return
    asked = " (it was asked to end)" if document["cancel_asked_at"] else ""
    said = f"{document['command_id']}  {document['description']}: {document['state']}{asked}"
    Console().print(said, highlight=False, markup=False, soft_wrap=True)


def _state(each: showing.Document) -> Text:
    good = each["state"] in ("queued", "running", "succeeded") and not each["deaths"]
    return showing.word(each["state"], good=good)


def _where(each: showing.Document) -> str:
    """Return what a command does now, or why it ended."""
    if each["ended_at"]:
        return each["error"] or ""
    parts = [each["step"] or ""]
    if each["progress"] is not None:
        parts.append(f"{each['progress']:.0%}")
    parts.append(each["message"] or "")
    if each["cancel_asked_at"]:
        parts.append(f"cancelled by {each['cancel_asked_by']}")
    if each["deaths"]:
        parts.append(f"its runner ended {each['deaths']} times")
    return ", ".join(part for part in parts if part)


def _table(commands: list[showing.Document]) -> RenderableType:
    rows = (
        (
            each["command_id"],
            _state(each),
            each["description"],
            each["user_name"],
            each["node"] or "",
            each["submitted_at"],
            showing.seconds(each["age_s"]),
            _where(each),
        )
        for each in commands
    )
    columns = ("command", "state", "what", "user", "node", "submitted", ">age", "")
    return showing.table("There is no such command.", columns, rows)


def _one(document: showing.Document) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    for name in ("command_id", "name", "description", "state", "error", "user_name", "node"):
        grid.add_row(name, str(document[name] or ""))
    grid.add_row("subject", f"{document['subject_kind']} {document['subject_id']}")
    grid.add_row("runs", f"attempt {document['attempt']}, {document['deaths']} ended with a node")
    for name in (
        *("submitted_at", "started_at", "ended_at", "deadline_at", "not_before"),
        *("cancel_asked_at", "cancel_asked_by", "parent_id", "retry_of", "correlation_id"),
    ):
        if document[name]:
            grid.add_row(name, str(document[name]))
    parts: list[RenderableType] = [grid, _steps(document["steps"])]
    if document["children"]:
        parts.append(_table(document["children"]))
    return Group(*parts)


def _steps(steps: list[showing.Document]) -> RenderableType:
    rows = (
        (
            each["number"],
            each["title"],
            showing.word(each["state"], good=each["state"] in ("started", "finished")),
            "" if each["progress"] is None else f"{each['progress']:.0%}",
            each["error"] or each["message"] or "",
            each["started_at"],
            each["ended_at"] or "",
        )
        for each in steps
    )
    columns = (">step", "what", "state", ">done", "", "begun", "ended")
    return showing.table("No step was begun.", columns, rows)
