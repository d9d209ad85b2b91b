"""When heartbeats go: together, as far as the database's clock can bring that about."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_pg.cluster.heartbeats import Heartbeats

PERIOD_S, LOOK_S = 1.5, 0.25  # six instants in a period


def beats(phase: float) -> Heartbeats:
    return Heartbeats(PERIOD_S, look_s=LOOK_S, phase=phase)


def instants_after(beat: Heartbeats, at_s: float, many: int) -> list[float]:
    """Return when the database carries out the next ones: a millisecond after each was sent."""
    found = []
    for _ in range(many):
        at_s += beat.next_s(at_s)
        found.append(at_s)
    return found


@given(at_s=st.floats(0, 4e9), other_s=st.floats(0, 4e9), phase=st.floats(0, 0.99))
def test_members_of_one_phase_meet_after_a_period(at_s, other_s, phase):
    mine = instants_after(beats(phase), at_s, 2)[-1]
    other = instants_after(beats(phase), other_s, 2)[-1]
    apart_s = (mine - other + PERIOD_S / 2) % PERIOD_S - PERIOD_S / 2
    assert abs(apart_s) <= 2 * 0.02 * PERIOD_S + 1e-5


@given(at_s=st.floats(0, 4e9), phase=st.floats(0, 0.99))
def test_no_heartbeat_is_later_than_a_period_whatever_the_clock_says(at_s, phase):
    assert 0 < beats(phase).next_s(at_s) <= PERIOD_S


@pytest.mark.parametrize("late_s", [0.0, 0.001, 0.02, 0.2])
def test_one_that_was_late_makes_up_for_it(late_s):
    assert beats(0.0).next_s(1000 * PERIOD_S + late_s) == pytest.approx(PERIOD_S - late_s)


def test_one_that_was_a_little_early_is_not_repeated():
    assert beats(0.0).next_s(1000 * PERIOD_S - 0.001) == PERIOD_S


def test_a_period_has_as_many_instants_as_the_looks_of_a_cluster_are_to_lie_apart():
    at_s = 1000 * PERIOD_S + 0.1
    waits_s = sorted({round(beats(number / 1024).next_s(at_s), 6) for number in range(1024)})
    assert len(waits_s) == PERIOD_S / LOOK_S
    assert [b - a for a, b in itertools.pairwise(waits_s)] == pytest.approx([LOOK_S] * 5)


def test_without_a_word_about_the_clock_a_period_passes():
    assert beats(0.7).next_s(None) == PERIOD_S
