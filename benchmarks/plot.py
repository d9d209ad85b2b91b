"""`python -m benchmarks.plot FILE.json`: draw what `benchmarks.locks` or `.failover` reported."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.svg import Bar, Chart

DOCS: Final = Path(__file__).resolve().parent.parent / "docs" / "benchmarks"
TAKEOVERS: Final = {"crash_takeover": "killed", "graceful_takeover": "left"}


def charts(report: Mapping[str, Any]) -> dict[str, Chart]:
    """Return the charts of what was measured, by file name."""
    found: dict[str, Chart] = {}
    if _measured(report, "throughput"):
        found |= {"throughput": _throughput(report), "latency": _latency(report)}
    if _measured(report, "handover"):
        found["handover"] = _handover(report)
    if any(_measured(report, part) for part in TAKEOVERS):
        found["takeover"] = _takeover(report)
    if "three_nodes" in report:
        found["failover"] = _failover(report)
    return found


def _measured(report: Mapping[str, Any], part: str) -> bool:
    return part in report and not {"failed", "why_not"} & set(report[part])


def _contenders(report: Mapping[str, Any]) -> list[str]:
    return list(report["contenders"])


def _by_clients(report: Mapping[str, Any], figure: str, reaches: str = "") -> dict[str, Any]:
    """Return groups, series and bars of a figure by contender and number of clients."""
    rows: Mapping[str, Any] = report["throughput"]
    names = [name for name in _contenders(report) if name in rows]
    groups = list(rows[names[0]])
    bars = {
        (name, _clients(many)): Bar(
            rows[name][many][figure], rows[name][many][reaches] if reaches else None
        )
        for name in names
        for many in groups
    }
    return {
        "groups": [_clients(many) for many in groups],
        "series": _contenders(report),
        "bars": bars,
    }


def _clients(many: str) -> str:
    return "1 client" if many == "1" else f"{many} clients"


def _throughput(report: Mapping[str, Any]) -> Chart:
    return Chart(
        "Acquire and release, pairs per second (more is better)",
        "each client its own key; logarithmic",
        "1/s",
        **_by_clients(report, "pairs_per_s"),
    )


def _latency(report: Mapping[str, Any]) -> Chart:
    return Chart(
        "Acquire and release, milliseconds (less is better)",
        "bar: median, line: 99th percentile; logarithmic",
        "ms",
        **_by_clients(report, "p50_ms", "p99_ms"),
    )


def _handover(report: Mapping[str, Any]) -> Chart:
    rows: Mapping[str, Any] = report["handover"]
    group = "from the release on one node to the grant on the other"
    bars = {(name, group): Bar(each["p50_ms"], each["p99_ms"]) for name, each in rows.items()}
    return Chart(
        "A contended key changes hands, milliseconds (less is better)",
        "bar: median, line: 99th percentile; logarithmic",
        "ms",
        groups=[group],
        series=_contenders(report),
        bars=bars,
    )


def _takeover(report: Mapping[str, Any]) -> Chart:
    parts = {part: word for part, word in TAKEOVERS.items() if _measured(report, part)}
    ttl_s = report[next(iter(parts))]["ttl_s"]
    series = ("lock", "leadership")
    bars = {
        (name, word): Bar(report[part][name]["p50_s"], report[part][name]["p99_s"])
        for part, word in parts.items()
        for name in series
    }
    return Chart(
        "A member is gone: seconds until another has what it had (less is better)",
        f"ttl {ttl_s:g} s; bar: median, line: 99th percentile; logarithmic",
        "s",
        groups=list(parts.values()),
        series=series,
        bars=bars,
    )


def _failover(report: Mapping[str, Any]) -> Chart:
    series = {
        "two data nodes": report["faults"],
        "three data nodes": report["three_nodes"],
        "by default, a plain client": report["default"],
    }
    bars = {
        (name, kind): Bar(each["write_gap_p50_s"], max(each["write_gap_s"]))
        for name, faults in series.items()
        for kind, each in faults.items()
    }
    return Chart(
        "A primary is lost: seconds without an acknowledged write (less is better)",
        "bar: median, line: the longest; logarithmic",
        "s",
        groups=list(report["faults"]),
        series=list(series),
        bars=bars,
    )


def main() -> None:
    """Draw what the file has."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plot", description=__doc__)
    parser.add_argument("file", type=Path, help="what --json wrote")
    parser.add_argument("--to", type=Path, default=DOCS, metavar="FOLDER", help="docs/benchmarks")
    given = parser.parse_args()
    given.to.mkdir(parents=True, exist_ok=True)
    for name, chart in charts(json.loads(given.file.read_text())).items():
        path = given.to / f"{name}.svg"
        path.write_text(chart.svg())
        print(path)


if __name__ == "__main__":
    main()
