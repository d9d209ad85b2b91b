"""What all failovers of a run amount to, for programs and for people."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table

AIMED: Final = ("kill", "freeze", "vanished", "partition")
"""Faults whose gap is compared; a switchover is no fault."""

Found = Sequence[Mapping[str, Any]]


def figures(two: Found, three: Found, default: Found) -> dict[str, Any]:
    """Return the report: what each fault did to two data nodes, to three, and by default."""
    faults = _by_kind(two)
    defaults = {kind: _of_default(some) for kind, some in _grouped(default).items()}
    for kind, each in faults.items():
        each["ratios"] = {"gap_vs_default": _ratio(each, defaults.get(kind))}
    ratios = {kind: faults[kind]["ratios"]["gap_vs_default"] for kind in faults}
    aimed = [ratios[kind] for kind in AIMED if ratios.get(kind) is not None]
    return {
        "faults": faults,
        "three_nodes": _by_kind(three),
        "default": defaults,
        "ratios": {
            "gap_vs_default": max(aimed, default=None),
            **{f"gap_vs_default_{kind}": ratio for kind, ratio in ratios.items()},
        },
        "lost": sum(each["lost"] for each in (*two, *three)),
        "violations": [said for each in (*two, *three) for said in each["violations"]],
    }


def _grouped(found: Found) -> dict[str, Found]:
    kinds = dict.fromkeys(each["kind"] for each in found)
    return {kind: [each for each in found if each["kind"] == kind] for kind in kinds}


def _by_kind(found: Found) -> dict[str, dict[str, Any]]:
    return {kind: _of_ours(some) for kind, some in _grouped(found).items()}


def _of_ours(some: Found) -> dict[str, Any]:
    gaps_s = [each["write_gap_s"] for each in some]
    return {
        "count": len(some),
        "write_gap_p50_s": round(statistics.median(gaps_s), 3),
        "write_gap_s": gaps_s,
        "writable_s": [each["writable_s"] for each in some],
        "read_gap_s": max(each["read_gap_s"] for each in some),
        "reads": sum(each["reads"] for each in some),
        "reads_failed": sum(each["reads_failed"] for each in some),
        "resume_s": max(each["resume_s"] for each in some),
        "resume_p50_s": round(statistics.median(each["resume_s"] for each in some), 3),
        "lost": sum(each["lost"] for each in some),
    }


def _of_default(some: Found) -> dict[str, Any]:
    gaps_s = [each["write_gap_s"] for each in some]
    return {
        "count": len(some),
        "write_gap_p50_s": round(statistics.median(gaps_s), 3),
        "write_gap_s": gaps_s,
        "lost": sum(each["lost"] for each in some),
    }


def _ratio(ours: Mapping[str, Any], default: Mapping[str, Any] | None) -> float | None:
    if default is None:
        return None
    return round(ours["write_gap_p50_s"] / default["write_gap_p50_s"], 3)


def page(report: Mapping[str, Any]) -> str:
    """Return the report in Markdown."""
    facts, worst = report["machine"], report["ratios"]["gap_vs_default"]
    rows = [row for nodes in ("faults", "three_nodes") for row in _rows(report, nodes)]
    aimed = "not measured" if worst is None else f"{worst:.3f}"
    return "\n".join(
        (
            "# Failovers, measured",
            "",
            "Written by `make bench-failovers`, with [failover.json](failover.json); what is what:"
            " [Failovers](README.md#failovers).",
            "",
            "![Seconds without a write](failover.svg)",
            "",
            "| fault | data nodes | times | no write acknowledged, p50 (longest), s | by default, s"
            " | ratio | no read answered, s | reads that failed | work resumes after, s | lost |",
            "|" + "---|" * 10,
            *rows,
            "",
            f"The four faults that take a primary away: {aimed} of the default's gap, at worst."
            f" {report['locks']} locks held by each of two members, a lease of {report['ttl_s']:g}"
            f" s; {len(report['violations'])} promises broken. {facts['processors']} processors"
            f" ({facts['processor']}), a load of {facts['load']:g} before it began;"
            f" PostgreSQL {facts['postgresql']}, data folders in memory;"
            f" {report['took_s'] / 60:.0f} minutes.",
            "",
        )
    )


def _rows(report: Mapping[str, Any], nodes: str) -> Iterator[str]:
    for kind, each in report[nodes].items():
        default = report["default"].get(kind) if nodes == "faults" else None
        ratio = each["ratios"]["gap_vs_default"] if default else None
        words = (
            kind,
            "2" if nodes == "faults" else "3",
            f"{each['count']}",
            f"{each['write_gap_p50_s']:.1f} ({max(each['write_gap_s']):.1f})",
            f"{default['write_gap_p50_s']:.1f}" if default else "",
            f"{ratio:.3f}" if ratio is not None else "",
            f"{each['read_gap_s']:.1f}",
            f"{each['reads_failed']} of {each['reads']}",
            f"{each['resume_p50_s']:.1f} ({each['resume_s']:.1f})",
            f"{each['lost']}",
        )
        yield f"| {' | '.join(words)} |"


def show(report: Mapping[str, Any]) -> None:
    """Print the report as a table."""
    table = Table("fault", "data nodes", "gap p50 s", "by default s", "read gap s", "resume s")
    for kind, each in report["faults"].items():
        default = report["default"].get(kind)
        beside = f"{default['write_gap_p50_s']:.1f}" if default else "not measured"
        table.add_row(kind, "2", f"{each['write_gap_p50_s']:.1f}", beside, *_rest(each))
    for kind, each in report["three_nodes"].items():
        table.add_row(kind, "3", f"{each['write_gap_p50_s']:.1f}", "", *_rest(each))
    console = Console(highlight=False)
    console.print(table)
    console.print(f"acknowledged writes lost: {report['lost']}; {report['ratios']}")
    for said in report["violations"]:
        console.print(f"broken: {said}", soft_wrap=True)


def _rest(each: Mapping[str, Any]) -> tuple[str, str]:
    return f"{each['read_gap_s']:.2f}", f"{each['resume_s']:.2f}"
