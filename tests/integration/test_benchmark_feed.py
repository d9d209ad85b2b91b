"""The benchmark of the feed: its arithmetic, and that it promises no figure it does not have."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.feed import reads, writes
from benchmarks.feed.__main__ import PARTS, measured
from benchmarks.ground import Ground


def test_a_ratio_is_the_median_of_the_ratios_within_each_round():
    rates = {"feed": [90, 200, 10], "plain": [100, 400, 10], "notify": [10, 10, 10]}
    found = writes.ratios(rates | {"followed": [50, 100, 9]})
    assert found == {
        "writes_vs_plain": 0.9,
        "writes_vs_notify": 9,
        "writes_followed_vs_plain": 0.5,
    }


def test_what_was_not_measured_is_null():
    report = asyncio.run(measured(Ground("", "", None, None), [], 1.0))
    promised = [name for part in PARTS.values() for name in part.figures]
    assert {"propagation_p50_ms", "propagation_p99_ms"} <= set(promised)
    assert {report[name] for name in promised} == {None}
    assert {"writes_vs_plain", "writes_vs_notify"} <= report["ratios"].keys()
    assert set(report["ratios"].values()) == {None}


@pytest.fixture
def place(postgres, template_database, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")  # whatever is installed here: Redis is not found
    return Ground(postgres.admin_url, template_database, tmp_path, None)


@pytest.mark.timeout(300)  # the last one starts nodes and fills a large inventory
def test_every_part_measures_what_it_promises(place, monkeypatch):
    monkeypatch.setattr(writes, "ROUNDS", 1)  # few processes: each takes a second to start
    monkeypatch.setattr(writes, "PROCESSES", 1)
    for rounds in ("ROUNDS", "BARRED_ROUNDS", "JOINS"):
        monkeypatch.setattr(reads, rounds, 1)
    report = asyncio.run(measured(place, list(PARTS), 0.3))
    for name, part in PARTS.items():
        assert report[name].keys() & {"failed", "why_not"} == set()
        assert all(report[figure] is not None for figure in part.figures)
        assert all(report["ratios"][ratio] > 0 for ratio in part.ratios)
    assert report["propagation"]["ours"]["away"]["lost"] == 0
    assert report["propagation"]["pubsub"].keys() == {"what", "why_not"}
