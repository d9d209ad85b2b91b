"""The live view of a stack: who lives, who leads, who holds what, and what just happened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich import box
from rich.console import Group, RenderableType
from rich.layout import Layout
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

import engine_pg
from engine_pg.demo.process import Process
from engine_pg.demo.stack import ADMIN, Stack

Rows = Sequence[Mapping[str, Any]]

_BAR: Final = 6
_FIRST_WIDTH: Final = 7
_TOKEN_BITS: Final = 40  # of a fencing token; the epoch stands above them
_GOOD: Final = ("up", "live", "running", "normal", "succeeded")
_BAD: Final = ("ended", "stopped", "error", "failed", "alert", "non_responsive", "not_responding")
_PARTITION: Final = "/"  # monitor/00 ... monitor/63 are one line


def render(
    stack: Stack, status: Mapping[str, Any] | None, said: Sequence[str], *, height: int
) -> RenderableType:
    """Return the whole screen; `status` is None while no node answers."""
    known: Mapping[str, Any] = status or {}
    rows = max(len(stack.processes), len(known.get("hosts", ())), 3) + 4
    layout = Layout()
    layout.split_column(
        Layout(_header(stack, status), size=4),
        Layout(name="who", size=min(rows, max(8, height // 3))),
        Layout(name="what", ratio=1, minimum_size=6),
        Layout(name="events", ratio=1, minimum_size=5),
    )
    layout["who"].split_row(
        Layout(_panel("Nodes", _nodes(stack.processes, known.get("nodes", ()))), ratio=3),
        Layout(_panel("Hosts", _hosts(known.get("hosts", ()))), ratio=2),
    )
    layout["what"].split_row(
        Layout(_panel("Locks", _locks(known.get("locks", ()))), ratio=3),
        Layout(_panel("Leaders, VMs, commands", _summary(known)), ratio=2),
    )
    layout["events"].update(_panel("Events", _events(known.get("events", ()), said)))
    return layout


def _header(stack: Stack, status: Mapping[str, Any] | None) -> Panel:
    line = Table.grid(expand=True)
    line.add_column(no_wrap=True, overflow="ellipsis")
    line.add_column(no_wrap=True, overflow="ellipsis", justify="right")
    where = f"PostgreSQL :{stack.embedded.port()}" if stack.embedded else "PostgreSQL: yours"
    where = "PostgreSQL: a formation" if stack.formation else where
    stale_s = None if status is None else status.get("stale_s")
    colour = "red" if status is None else "green" if stale_s is None else "yellow"
    state = Text("● ", style=colour)
    state.append(f"engine-pg {engine_pg.__version__}", style="bold").append(f"   {where}", "dim")
    if status is None:
        state.append("   no node answers", style=colour)
    elif stale_s is not None:
        state.append(f"   the database is away: {stale_s:.0f} s old", style=colour)
    line.add_row(state, Text("Ctrl-C stops everything", style="dim"))
    line.add_row(
        Text(f"{stack.urls[0]}/ovirt-engine/api", style="cyan"),
        Text(f"{ADMIN}, password in {stack.state.password_file}", style="dim"),
    )
    return Panel(line, box=box.ROUNDED, border_style="bright_black")


def _panel(title: str, content: RenderableType) -> Panel:
    return Panel(content, title=title, title_align="left", box=box.ROUNDED, border_style="blue")


def _table(*columns: str) -> Table:
    table = Table(box=None, expand=True, pad_edge=False, header_style="dim")
    for column in columns:
        right = column.startswith(">")
        table.add_column(
            column.lstrip(">"),
            min_width=_FIRST_WIDTH if column == columns[0] else len(column),
            justify="right" if right else "left",
            no_wrap=True,
            overflow="ellipsis",
        )
    return table


def _state(word: str) -> Text:
    style = "green" if word in _GOOD else "red" if word in _BAD else "yellow"
    return Text(word, style=style)


def _lease(row: Mapping[str, Any]) -> Text:
    """Return what is left of the lease; it empties when the renewals fail to come."""
    if row["age_s"] is None:
        return Text("unknown", style="yellow")
    left = max(0.0, 1 - row["age_s"] / row["ttl_s"])
    full = round(left * _BAR)
    style = "green" if left > 1 / 2 else "yellow" if left > 1 / 4 else "red"
    return Text("━" * full, style=style).append("━" * (_BAR - full), style="bright_black")


def _nodes(processes: Mapping[str, Process], members: Rows) -> Table:
    """Show each process beside its members: of a restarted node two, until the old one is ended."""
    table = _table("node", "process", ">pid", "member", "lease", ">leads", ">cmds")
    lives: dict[str, list[Mapping[str, Any]]] = {}
    for row in members:
        lives.setdefault(row["node"], []).append(row)
    for name in [*processes, *(lives.keys() - processes.keys())]:
        left: list[RenderableType] = [name, "", ""]  # a node that somebody else started
        if process := processes.get(name):
            left[1:] = [_state(process.state), str(process.pid or "")]
        rows = lives.get(name, [])
        shown = [row for row in rows if row["state"] != "ended"] or rows[-1:]
        for row in reversed(shown):
            table.add_row(*left, *_member(row))
            left = [Text(" before", style="dim"), "", ""]
        if not shown:
            table.add_row(*left)
    return table


def _member(row: Mapping[str, Any]) -> list[RenderableType]:
    if row["state"] == "ended":
        return [_state("ended")]
    return [_state(row["state"]), _lease(row), str(row["leaderships"]), str(row["commands"])]


def _hosts(hosts: Rows) -> Table:
    table = _table("host", "status", "VMs")
    for host in hosts:
        running = Text(f"{host['vms']:>3} ").append("■" * host["vms"], "green")
        table.add_row(host["name"], _state(host["status"]), running)
    return table


def _locks(locks: Rows | None) -> RenderableType:
    if locks is None:
        return Text("the database is away: nobody can tell", style="yellow")
    if not locks:
        return Text("nobody holds a lock", style="dim")
    table = _table("lock", "mode", ">token", "holder", ">age", "for")
    for lock in locks:
        kind, _, key = lock["key"].partition(":")
        token = f"{lock['token'] >> _TOKEN_BITS}.{lock['token'] % (1 << _TOKEN_BITS)}"
        holder = Text(lock["node"]) if lock["node"] else Text("nobody", style="yellow")
        age = f"{lock['age_s']:.1f} s"
        why = lock["command"] or lock.get("reason") or ""
        table.add_row(f"{kind} {key[:8]}", lock["mode"][:4], token, holder, age, why)
    return table


def _summary(known: Mapping[str, Any]) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    table.add_row(Text("VMs", style="dim"), _counts(known.get("vms", {})))
    table.add_row(Text("commands", style="dim"), _counts(known.get("commands", {})))
    leaders: Rows = known.get("leaders", ())
    shares: dict[str, Counter[str]] = {}
    for leader in leaders:
        kind, partition, _ = leader["name"].partition(_PARTITION)
        if partition:
            shares.setdefault(kind, Counter())[leader["node"] or "vacant"] += 1
        else:
            who = Text(leader["node"]) if leader["node"] else Text("vacant", style="red")
            table.add_row(Text(kind, style="dim"), who.append(f"  term {leader['term']}", "dim"))
    for kind, share in shares.items():
        table.add_row(Text(kind, style="dim"), _counts(dict(sorted(share.items()))))
    return table


def _counts(counts: Mapping[str, int]) -> Text:
    line = Text()
    for word, count in counts.items():
        line.append(f"{count} ", style="bold").append_text(_state(word)).append("  ")
    return line


def _events(events: Rows, said: Sequence[str]) -> Group:
    """Show what happened to processes, which no node can know, above what the nodes tell."""
    lines = [Text(f"▸ {line}", style="magenta", overflow="ellipsis", no_wrap=True) for line in said]
    for event in events:
        line = Text(overflow="ellipsis", no_wrap=True)
        line.append(f"{str(event['at'])[11:19]} ", style="dim")
        severe = event["severity"] in ("warning", "error", "alert")
        line.append(str(event["description"]), style="yellow" if severe else "")
        lines.append(line)
    return Group(*lines)
