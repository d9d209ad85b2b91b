"""Measures: what is counted where, and what it costs."""

from __future__ import annotations

import timeit

import pytest

from engine_pg.cluster.measures import MOST_KINDS, OTHER, Distribution, Measures


def test_a_value_falls_into_the_first_range_that_is_not_below_it():
    spread = Distribution((1, 2, 4))
    for value in (0.5, 1, 1.5, 4, 4.1):
        spread.add(value)
    assert spread.counts == [2, 1, 1, 1]
    assert (spread.count, spread.total) == (5, pytest.approx(11.1))


def test_kinds_are_told_apart_up_to_a_bound():
    measures = Measures()
    for number in range(MOST_KINDS + 5):
        measures.hold_s.add(f"kind-{number}", 0.1)
        measures.refused(f"kind-{number}")
    assert len(measures.hold_s.kinds) == MOST_KINDS + 1
    assert measures.hold_s.kinds[OTHER].count == measures.refusals[OTHER] == 5
    measures.refused("kind-0")
    assert measures.refusals["kind-0"] == 2


def test_everything_is_counted_where_it_belongs():
    measures = Measures()
    measures.batch(3, 0.002)
    measures.renewal(0.3)
    measures.wait_s.add("vm", 0.02)
    measures.hold_s.add("vm", 20.0)
    measures.paused(2.0)
    measures.resumed()
    measures.ended("other")
    assert (measures.batch_sizes.total, measures.batch_s.total) == (3, 0.002)
    assert measures.renewal_s.total == 0.3
    assert measures.wait_s.kinds["vm"].total == 0.02
    assert measures.hold_s.kinds["vm"].total == 20.0
    assert (measures.pause_s.total, measures.resumes, measures.endings) == (2.0, 1, {"other": 1})


@pytest.mark.parametrize(
    "call", ["wait_s.add('vm', 0.01)", "hold_s.add('vm', 1.0)", "refused('vm')", "batch(5, 0.01)"]
)
def test_a_call_costs_next_to_nothing(call):
    """Some 0.3 us on an idle machine; the bound tells arithmetic from what would hurt."""
    best = min(timeit.repeat(f"m.{call}", globals={"m": Measures()}, number=2000, repeat=30)) / 2000
    assert best < 5e-6
