"""`engine-pg leaders`: who leads what."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from engine_pg.cli import leader_orders, showing
from engine_pg.cluster import looks
from engine_pg.commands import shown

app = typer.Typer(help="List who leads what, since when, under which term; give orders.")
for _order in (leader_orders.pin, leader_orders.unpin, leader_orders.resign):
    app.command()(_order)


@app.callback(invoke_without_command=True)
def leaders(
    ctx: typer.Context,
    node: showing.Node = None,
    name: Annotated[str | None, typer.Option(help="This name only.")] = None,
    most: showing.Max = looks.MOST,
    as_json: showing.AsJson = False,
    watch: showing.Watch = False,
    every: showing.Every = showing.EVERY_S,
) -> None:
    """List who leads what, since when, under which term."""
    if ctx.invoked_subcommand is None:
        showing.Ways(as_json, watch, every).show(
            lambda tx: shown.leaders(tx, node=node, name=name, most=most), _leaders
        )


def _leaders(document: showing.Document) -> RenderableType:
    rows = (
        (
            each["name"],
            Text(each["node"] or "") if each["held"] else showing.word("vacant", good=False),
            each["member_id"] or "",
            each["term"],
            showing.seconds(each["age_s"]) if each["held"] else "",
            ", ".join(f"{k}: {v}" for k, v in each["placement"].items() if v not in (None, False)),
        )
        for each in document["leaders"]
    )
    columns = ("name", "node", "member", ">term", ">for", "placement")
    return showing.table("Nothing is led here.", columns, rows)
