"""The benchmark of commands: its arithmetic, and that it measures what it says."""

from __future__ import annotations

import asyncio

from benchmarks.jobs.contenders import ALL
from benchmarks.jobs.report import headlines
from benchmarks.jobs.rounds import ROUNDS, standing


def figures(*rates: float, p50_ms: float = 1.0) -> dict:
    return {"rates": list(rates), "submit_start": {"p50_ms": p50_ms, "p99_ms": p50_ms}}


def test_the_headlines_are_the_worse_of_one_and_of_four_workers():
    report = {
        "nodes_1": {"ours": figures(200, 300, 90), "procrastinate": figures(100, 100, 100)},
        "nodes_4": {"ours": figures(80, 80, 80, p50_ms=7.0), "procrastinate": figures(80, 40, 80)},
    }
    told = headlines(report)
    assert told["ratios"]["throughput_vs_procrastinate_1"] == 2.0
    assert told["ratios"]["throughput_vs_procrastinate"] == 1.0
    assert told["submit_start_p50_ms"] == 7.0
    assert told["ratios"]["recovery_vs_best_peer"] is None


def test_the_recovery_is_compared_with_the_fastest_that_recovers():
    worst = {"ours": 5.0, "procrastinate": None, "pgqueuer": 40.0, "dbos": None}
    report = {"recovery": {name: {"worst_s": each} for name, each in worst.items()}}
    assert headlines(report)["ratios"]["recovery_vs_best_peer"] == 8.0


def test_ours_is_measured(fresh_database_url):
    report = asyncio.run(standing({"ours": (ALL["ours"], fresh_database_url)}, 1, 0.1))
    assert len(report["ours"]["rates"]) == ROUNDS
    assert report["ours"]["commands_per_s"] > 0
    assert 0 < report["ours"]["submit_start"]["p50_ms"] < 1000
