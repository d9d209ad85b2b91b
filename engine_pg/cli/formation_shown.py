"""`engine-pg formation show`: the formation as the engine's nodes know it, wherever it is."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from rich.console import RenderableType
from rich.text import Text

from engine_pg.cli import showing
from engine_pg.db.tx import Tx
from engine_pg.formation import kept, shown
from engine_pg.formation.commits import HANG_S, WAITING, explained, hang_among, pairs
from engine_pg.settings import load_settings

NOW: Final = "select clock_timestamp() as now"
COLUMNS: Final = ("node", "address", "state", "goal", "healthy", "sync", ">lag", ">tli", ">silent")


def show(
    as_json: showing.AsJson = False,
    watch: showing.Watch = False,
    every: showing.Every = showing.EVERY_S,
) -> None:
    """Show the formation that the database is on as the nodes know it, and how old that is."""
    showing.Ways(as_json, watch, every).show(_asked, _rendered)


async def _asked(tx: Tx) -> showing.Document:
    row = await kept.read(tx)
    moment = await tx.first(NOW)
    waiting = await tx.all(WAITING)
    assert moment is not None
    now: datetime = moment["now"]
    hang = hang_among(waiting, pairs(waiting), HANG_S)
    if hang is not None:
        monitor = load_settings().monitor_url
        hang = await explained(hang, monitor.get_secret_value() if monitor else None)
    return shown.document(row, now, hang)


def _rendered(document: showing.Document) -> RenderableType:
    if document["age_s"] is None:
        nothing = Text("No formation is known: is ENGINE_MONITOR_URL set at the nodes?")
        return showing.with_warnings(nothing, document["warnings"])
    rows = (
        (
            each["name"],
            each["address"],
            showing.word(each["state"], good=each["state"] == each["goal"]),
            each["goal"],
            showing.word("yes" if each["healthy"] else "no", good=each["healthy"]),
            each["sync"],
            "" if each["lag_bytes"] is None else f"{each['lag_bytes']} B",
            each["timeline"] or "",
            showing.seconds(each["silent_s"]),
        )
        for each in document["nodes"]
    )
    table = showing.table("No node is known.", COLUMNS, rows)
    return showing.with_warnings(table, [*document["warnings"], *_age(document)])


def _age(document: showing.Document) -> list[str]:
    age_s = document["age_s"]
    return [f"this is {showing.seconds(age_s)} old"] if age_s > shown.OLD_S else []
