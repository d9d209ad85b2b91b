"""`engine-pg status`, `members` and `waiters`: the cluster as its database knows it."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from engine_pg.cli import showing
from engine_pg.cluster import looks
from engine_pg.commands import shown
from engine_pg.db.tx import Tx


def status(
    as_json: showing.AsJson = False,
    watch: showing.Watch = False,
    every: showing.Every = showing.EVERY_S,
) -> None:
    """Show the state of the cluster in a few figures, with a warning for all that is not well."""
    showing.Ways(as_json, watch, every).show(shown.status, _status)


def members(
    node: showing.Node = None,
    ended: Annotated[
        bool, typer.Option("--ended", help="Also those that ended more than a minute ago.")
    ] = False,
    most: showing.Max = looks.MOST,
    as_json: showing.AsJson = False,
    watch: showing.Watch = False,
    every: showing.Every = showing.EVERY_S,
) -> None:
    """List the members: each life of each node, its lease, and what it leads and holds."""
    showing.Ways(as_json, watch, every).show(
        lambda tx: shown.members(tx, node=node, ended=ended, most=most), _members
    )


def waiters(
    kind: Annotated[str | None, typer.Option(help="For locks of this kind only.")] = None,
    id_: Annotated[str | None, typer.Option("--id", help="For locks of this id only.")] = None,
    node: showing.Node = None,
    most: showing.Max = looks.MOST,
    as_json: showing.AsJson = False,
    watch: showing.Watch = False,
    every: showing.Every = showing.EVERY_S,
) -> None:
    """List who waits for locks, and for whom, the first to come first; tell of deadlocks."""

    async def ask(tx: Tx) -> showing.Document:
        found = await shown.waiters(tx, kind=kind, id_=id_, node=node, most=most)
        return found | {"cycles": (await shown.wait_graph(tx))["cycles"]}

    showing.Ways(as_json, watch, every).show(ask, _waiters)


def _status(document: showing.Document) -> RenderableType:
    epoch, members, leaders = document["epoch"], document["members"], document["leaders"]
    locks, waiters, room = document["locks"], document["waiters"], document["lock_table"]
    grid = Table.grid(padding=(0, 2))
    since = f"since {epoch['since']}" if epoch["since"] else ""
    grid.add_row("epoch", f"{epoch['id']}, timeline {epoch['timeline']}, {since}")
    grid.add_row("members", _counts(members))
    led = leaders["declared"] - len(leaders["vacant"])
    alone = bool(leaders["exactly_one"])
    one = showing.word("exactly one each" if alone else "not each", good=alone)
    grid.add_row("leaders", Text(f"{led} of {leaders['declared']} names: ").append_text(one))
    oldest = f", the oldest for {showing.seconds(locks['oldest_s'])}" if locks["held"] else ""
    grid.add_row("locks", _counts({k: v for k, v in locks.items() if k != "oldest_s"}) + oldest)
    longest = (
        f", the first for {showing.seconds(waiters['oldest_s'])}" if waiters["requests"] else ""
    )
    grid.add_row("waiters", f"{waiters['requests']}{longest}")
    share = 100 * room["used"] / room["capacity"]
    grid.add_row("lock table", f"{room['used']} of {room['capacity']} ({share:.1f} %)")
    return showing.with_warnings(grid, document["warnings"])


def _counts(counts: showing.Document) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _members(document: showing.Document) -> RenderableType:
    columns = (
        "node", "member", "state", ">epoch", ">session", ">renewal", ">age", ">leads", ">locks",
        ">waits", ">commands", ">weight", "address", "version",
    )  # fmt: skip
    rows = (
        (
            each["node"],
            each["member_id"],
            _state(each),
            showing.word(str(each["epoch_id"]), good=each["resumed"]),
            each["session_number"],
            each["renewal"],
            showing.seconds(each["age_s"]),
            each["leaderships"],
            each["locks"],
            each["waiting"],
            each["commands"],
            f"{each['weight']:g}",
            each["address"],
            each["version"],
        )
        for each in document["members"]
    )
    return showing.table("There is no member.", columns, rows)


def _state(member: showing.Document) -> Text:
    told = member["state"]
    if member["draining"] and told != "ended":
        told = f"{told}, draining"
    return showing.word(told, good=told == "live")


def _waiters(document: showing.Document) -> RenderableType:
    rows = (
        (
            each["ticket"] or "",
            "\n".join(f"{key['kind']}/{key['id']} {key['mode']}" for key in each["keys"]),
            each["node"],
            each["user_name"],
            showing.purpose(each),
            showing.seconds(each["age_s"]),
            "\n".join(_target(target) for target in each["waits_for"]),
        )
        for each in document["waiters"]
    )
    columns = (">ticket", "wants", "node", "user", "for", ">waits", "for whom")
    rings = [
        f"{'these commands' if ring['certain'] else 'perhaps these'} wait for each other: "
        + ", ".join(f"{agent['kind']} {agent['id']}" for agent in ring["agents"])
        for ring in document["cycles"]
    ]
    return showing.with_warnings(showing.table("Nobody waits.", columns, rows), rings)


def _target(target: showing.Document) -> str:
    who = target["node"] or "an ended member"
    why = f" ({showing.purpose(target)})" if showing.purpose(target) else ""
    if target["how"] == "holds":
        which = f"holds {target['mode']} {showing.token(target['token'])}"
    else:
        which = f"waits ahead, ticket {target['ticket']}"
    return f"{who} {which} for {showing.seconds(target['age_s'])}{why}"
