"""`engine-pg locks`: who holds what."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from engine_pg.cli import lock_breaking, showing
from engine_pg.cluster import looks
from engine_pg.commands import shown

app = typer.Typer(help="List who holds which lock, since when and why; break one.")
app.command("break")(lock_breaking.break_)


@app.callback(invoke_without_command=True)
def locks(
    ctx: typer.Context,
    kind: Annotated[str | None, typer.Option(help="Of this kind only, such as vm.")] = None,
    id_: Annotated[str | None, typer.Option("--id", help="Of this id only.")] = None,
    node: showing.Node = None,
    most: showing.Max = looks.MOST,
    as_json: showing.AsJson = False,
    watch: showing.Watch = False,
    every: showing.Every = showing.EVERY_S,
) -> None:
    """List who holds which lock, since when and why."""
    if ctx.invoked_subcommand is None:
        showing.Ways(as_json, watch, every).show(
            lambda tx: shown.locks(tx, kind=kind, id_=id_, node=node, most=most), _locks
        )


def _locks(document: showing.Document) -> RenderableType:
    rows = (
        (
            each["kind"],
            each["id"],
            each["mode"],
            showing.token(each["token"]),
            each["node"] or showing.word("nobody", good=False),
            each["user_name"],
            showing.purpose(each),
            showing.seconds(each["age_s"]),
            _remark(each),
        )
        for each in document["locks"]
    )
    columns = ("kind", "id", "mode", ">token", "node", "user", "for", ">held", "")
    return showing.table("Nobody holds a lock.", columns, rows)


def _remark(lock: showing.Document) -> Text:
    remarks = (
        (lock["broken_at"], f"broken by {lock['broken_by']}"),
        (lock["member_id"] is None, "nobody runs its command now"),
        (lock["unresumed"], "not resumed in this epoch"),
        (lock["member_id"] and not lock["advisory_held"], "advisory lock follows"),
    )
    return showing.word(", ".join(text for true, text in remarks if true), good=False)
