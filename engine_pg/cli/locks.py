"""`engine-pg locks`: who holds what."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from engine_pg.cli.showing import (
    EVERY_S,
    AsJson,
    Document,
    Every,
    Max,
    Node,
    Watch,
    Ways,
    purpose,
    seconds,
    table,
    token,
    word,
)
from engine_pg.cluster import looks
from engine_pg.commands import shown

app = typer.Typer(help="List who holds which lock, since when and why.")


@app.callback(invoke_without_command=True)
def locks(
    ctx: typer.Context,
    kind: Annotated[str | None, typer.Option(help="Of this kind only, such as vm.")] = None,
    id_: Annotated[str | None, typer.Option("--id", help="Of this id only.")] = None,
    node: Node = None,
    most: Max = looks.MOST,
    as_json: AsJson = False,
    watch: Watch = False,
    every: Every = EVERY_S,
) -> None:
    """List who holds which lock, since when and why."""
    if ctx.invoked_subcommand is None:
        Ways(as_json, watch, every).show(
            lambda tx: shown.locks(tx, kind=kind, id_=id_, node=node, most=most), _locks
        )


def _locks(document: Document) -> RenderableType:
    rows = (
        (
            each["kind"],
            each["id"],
            each["mode"],
            token(each["token"]),
            each["node"] or word("ended", good=False),
            each["user_name"],
            purpose(each),
            seconds(each["age_s"]),
            _remark(each),
        )
        for each in document["locks"]
    )
    columns = ("kind", "id", "mode", ">token", "node", "user", "for", ">held", "")
    return table("Nobody holds a lock.", columns, rows)


def _remark(lock: Document) -> Text:
    remarks = (
        (lock["broken_at"], f"broken by {lock['broken_by']}"),
        (lock["member_id"] is None, "awaits adoption"),
        (lock["unresumed"], "not resumed in this epoch"),
        (lock["member_id"] and not lock["advisory_held"], "advisory lock follows"),
    )
    return word(", ".join(text for true, text in remarks if true), good=False)
