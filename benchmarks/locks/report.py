"""The report for people, and the few numbers that everybody asks for first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.locks.rounds import CLIENTS, ratios

_HEADLINES: Final = {
    "crash_takeover_p99_s": ("crash_takeover", "p99_s"),
    "graceful_takeover_p99_s": ("graceful_takeover", "p99_s"),
    "resume_1000_s": ("resume", "worst_s"),
    "heartbeat_cost_percent": ("heartbeat", "cost_percent"),
}


def headlines(report: Mapping[str, Any], peers: Iterable[str]) -> dict[str, Any]:
    """Return ratios and headline figures, each there whatever was measured; None: it was not."""
    none = ratios({}, peers, CLIENTS)
    return {
        "ratios": {**none, **report.get("throughput", {}).get("ratios", {})},
        **{key: report.get(part, {}).get(figure) for key, (part, figure) in _HEADLINES.items()},
    }


def show(report: Mapping[str, Any]) -> None:
    """Print the report as tables."""
    console = Console(highlight=False)
    for part, table in (
        ("throughput", _throughput),
        ("handover", _handover),
        ("holding", _holding),
    ):
        if part in report and "failed" not in report[part]:
            console.print(table(report))
    for name, told in report.get("contenders", {}).items():
        why = "" if told["measured"] else f" NOT MEASURED: {told['why_not']}"
        console.print(f"{name}: {told['what']}; {told['durability']}{why}", soft_wrap=True)
    console.print(_alone(report))
    facts = ", ".join(f"{name} {value}" for name, value in report["machine"].items())
    console.print(facts, soft_wrap=True)


def _throughput(report: Mapping[str, Any]) -> Table:
    table = Table(
        "contender",
        *("clients", "pairs/s", "p50 ms", "p99 ms", "ours to theirs"),
        title="acquire and release, each client its own key",
    )
    for clients in map(str, CLIENTS):
        for name in _measured(report):
            ratio = report["ratios"].get(f"{name}_{clients}")
            figures = report["throughput"][name][clients]
            numbers = [_number(figures[key]) for key in ("pairs_per_s", "p50_ms", "p99_ms")]
            table.add_row(name, clients, *numbers, "" if ratio is None else f"{ratio:.2f}")
        table.add_section()
    return table


def _measured(report: Mapping[str, Any]) -> list[str]:
    return [name for name, told in report["contenders"].items() if told["measured"]]


def _handover(report: Mapping[str, Any]) -> Table:
    table = Table("contender", "p50 ms", "p99 ms", "count", title="one key from node to node")
    for name, figures in report["handover"].items():
        numbers = [_number(figures[key]) for key in ("p50_ms", "p99_ms", "count")]
        table.add_row(name, *numbers)
    return table


def _holding(report: Mapping[str, Any]) -> Table:
    columns = ("take_s", "give_back_s", "memory_bytes", "stored_bytes", "connections")
    titles = ("taken in s", "given back in s", "memory B", "stored B", "connections")
    table = Table("contender", *titles, title="10,000 locks held by one node")
    for name, figures in report["holding"].items():
        numbers = [_number(figures.get(column)) for column in columns]
        table.add_row(name, *(numbers if "why_not" not in figures else [figures["why_not"]]))
    return table


def _alone(report: Mapping[str, Any]) -> Table:
    table = Table("figure", "value", "of", title="takeovers, resume, heartbeats")
    for key, (part, _) in _HEADLINES.items():
        whole: Mapping[str, Any] = report.get(part, {"why_not": "not asked for"})
        said = whole.get("why_not") or whole.get("failed")
        value = _number(report[key]) if report[key] is not None else "not measured"
        table.add_row(key, value, said or _facts(whole))
    return table


def _facts(whole: Mapping[str, Any]) -> str:
    plain = {name: value for name, value in whole.items() if not isinstance(value, dict | list)}
    return ", ".join(f"{name} {value}" for name, value in plain.items())


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"
