"""The few numbers that everybody asks for first, and the report for people."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any, Final

from rich.console import Console
from rich.table import Table

NODES: Final = (1, 4)


def headlines(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return ratios and the median start, each there whatever was measured; None: it was not."""
    throughput = [_to_stock(report.get(f"nodes_{nodes}", {})) for nodes in NODES]
    known = [ratio for ratio in throughput if ratio is not None]
    starts = [_start(report.get(f"nodes_{nodes}", {})) for nodes in NODES]
    return {
        "ratios": {
            "throughput_vs_procrastinate": min(known, default=None),
            **{
                f"throughput_vs_procrastinate_{nodes}": ratio
                for nodes, ratio in zip(NODES, throughput, strict=True)
            },
            "recovery_vs_best_peer": _recovery(report.get("recovery", {})),
        },
        "submit_start_p50_ms": max((each for each in starts if each is not None), default=None),
    }


def _to_stock(figures: Mapping[str, Any]) -> float | None:
    """Return the median of the ratios within each round: drifts of the machine cancel out."""
    if not {"ours", "procrastinate"} <= figures.keys():
        return None
    pairs = zip(figures["ours"]["rates"], figures["procrastinate"]["rates"], strict=True)
    return round(statistics.median(ours / theirs for ours, theirs in pairs), 3)


def _start(figures: Mapping[str, Any]) -> float | None:
    return figures["ours"]["submit_start"]["p50_ms"] if "ours" in figures else None


def _recovery(figures: Mapping[str, Any]) -> float | None:
    """Return how many times as long as ours the fastest peer took that recovers by itself."""
    worst: dict[str, float | None] = {name: each["worst_s"] for name, each in figures.items()}
    ours = worst.pop("ours", None)
    peers = [each for each in worst.values() if each is not None]
    return round(min(peers) / ours, 3) if ours and peers else None


def show(report: Mapping[str, Any]) -> None:
    """Print the report as tables."""
    console = Console(highlight=False)
    table = Table("nodes", "contender", "commands/s", "start p50 ms", "start p99 ms")
    for nodes in NODES:
        for name, figures in report.get(f"nodes_{nodes}", {}).items():
            start = figures["submit_start"]
            table.add_row(
                str(nodes),
                name,
                f"{figures['commands_per_s']:,.0f}",
                f"{start['p50_ms']:.1f}",
                f"{start['p99_ms']:.1f}",
            )
        table.add_section()
    console.print(table)
    for name, figures in report.get("recovery", {}).items():
        worst = figures["worst_s"]
        told = f"{worst:.1f} s" if worst is not None else f"not within {figures['bound_s']:.0f} s"
        console.print(f"{name}: a killed worker's command again after {told}; {figures['how']}")
    for name, told in report.get("contenders", {}).items():
        why = "" if told["measured"] else f" NOT MEASURED: {told['why_not']}"
        console.print(f"{name}: {told['what']}{why}", soft_wrap=True)
    console.print(report["ratios"], f"submit_start_p50_ms {report['submit_start_p50_ms']}")
    facts = ", ".join(f"{name} {value}" for name, value in report.get("machine", {}).items())
    console.print(facts, soft_wrap=True)
