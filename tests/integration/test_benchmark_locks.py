"""The benchmark of locks: its arithmetic, and that it promises no figure that it does not have."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.ground import Ground
from benchmarks.locks.__main__ import PEERS, measured
from benchmarks.locks.rounds import CLIENTS, Round, figures, percentile, ratios, rotated
from benchmarks.plot import charts


def rounds(*rates: int) -> list[Round]:
    return [Round([0.001] * rate, 1.0) for rate in rates]


def test_a_ratio_is_the_median_of_the_ratios_within_each_round():
    # 4, 3 and 20: neither their mean nor the ratio of the sums.
    known = {("ours", 64): rounds(400, 900, 200), ("naive", 64): rounds(100, 300, 10)}
    assert ratios(known, ["naive", "etcd"], [64]) == {"naive_64": 4.0, "etcd_64": None}


def test_a_round_without_its_counterpart_is_no_ratio():
    with pytest.raises(ValueError, match="shorter"):
        ratios({("ours", 1): rounds(2, 2), ("naive", 1): rounds(1)}, ["naive"], [1])


def test_pairs_per_second_count_the_whole_time():
    known = [Round([0.1, 0.3], 2.0), Round([0.2], 1.0)]
    assert figures(known) == {
        "pairs": 3,
        "pairs_per_s": 1.0,
        "p50_ms": 200.0,
        "p99_ms": 300.0,
        "max_ms": 300.0,
    }


def test_a_percentile_was_measured():
    assert percentile([3.0, 1.0, 2.0], 99) == 3.0
    assert percentile(range(1, 201), 99) == 198
    assert percentile([], 99) is None


def test_everybody_goes_first_once():
    assert [rotated("abc", number)[0] for number in range(4)] == ["a", "b", "c", "a"]


@pytest.fixture(scope="module")
def report(postgres, template_database, tmp_path_factory):
    place = Ground(postgres.admin_url, template_database, tmp_path_factory.mktemp("peers"), None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "")  # whatever is installed here: etcd is not found
        parts = ("throughput", "resume")
        return asyncio.run(measured(place, ["naive", "etcd"], parts, 0.1, clients=(1, 4)))


def test_the_report_has_every_promised_figure(report):
    assert {f"{peer}_{many}" for peer in PEERS for many in CLIENTS} <= set(report["ratios"])
    assert report["ratios"]["naive_1"] > 0
    assert report["throughput"]["ours"]["4"]["pairs_per_s"] > 0
    assert report["crash_takeover_p99_s"] is report["graceful_takeover_p99_s"] is None
    assert report["heartbeat_cost_percent"] is None


def test_what_is_missing_here_is_named_and_not_measured(report):
    told = report["contenders"]["etcd"]
    assert not told["measured"]
    assert "etcd" in told["why_not"]
    assert "install" in told["why_not"]
    assert report["ratios"]["etcd_1"] is report["ratios"]["etcd_64"] is None
    assert "etcd" not in report["throughput"]


def test_a_server_that_is_not_ours_is_not_crashed(report):
    assert "ENGINE_DATABASE_URL" in report["resume"]["why_not"]
    assert report["resume_1000_s"] is None


def test_a_report_is_drawn_with_a_place_for_who_was_not_measured(report):
    drawn = charts(report)
    assert set(drawn) == {"throughput", "latency"}
    svg = drawn["throughput"].svg()
    assert svg.count(">n/a<") == 2  # etcd, with 1 and 4 clients
    assert ">4 clients<" in svg
