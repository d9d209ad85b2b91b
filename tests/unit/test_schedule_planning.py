"""What becomes of ticks that are due: every tick in one record, whatever the policy."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from engine_pg.schedules import planning
from engine_pg.schedules.planning import BUSY, Firing, Open, Policy, admitted, due, firings
from engine_pg.schedules.rule import Every, Timetable

START = datetime(2026, 1, 1, tzinfo=UTC)
MISFIRES = ("fire_once", "fire_all", "skip")


def second(number: float) -> datetime:
    return START + timedelta(seconds=number)


def table(jitter_s: float = 0.0) -> Timetable:
    return Timetable(name="a", rule=Every(1, START), jitter_s=jitter_s)


def fired_until(now: datetime, policy: Policy, *, most: int, jitter_s: float = 0.0):
    """Fire from the first tick on, transaction after transaction, as if no run took any time."""
    at, written = START, []
    while True:
        found = due(table(jitter_s), at, now, most=most)
        written += firings(found, now, policy, Open())
        at = found.next.due
        if found.next.fires > now:
            return written


policies = st.builds(
    Policy,
    misfire=st.sampled_from(MISFIRES),
    grace_s=st.integers(0, 40),
    overlap=st.just("allow"),
)


@given(
    policy=policies,
    late_s=st.integers(0, 60),
    most=st.integers(1, 30),
    jitter_s=st.sampled_from([0.0, 0.5]),
)
def test_every_tick_is_in_one_record_and_in_order(policy, late_s, most, jitter_s):
    now = second(late_s + 0.75)
    written = fired_until(now, policy, most=most, jitter_s=jitter_s)
    assert written[0].first == START
    assert all(b.first == a.due + timedelta(seconds=1) for a, b in pairwise(written))
    assert all(each.ticks == (each.due - each.first).seconds + 1 for each in written)
    assert written[-1].due in (second(late_s), second(late_s - 1))


@given(policy=policies, late_s=st.integers(0, 60), most=st.integers(1, 30))
def test_ticks_within_the_grace_fire_each_and_the_missed_ones_by_their_policy(policy, late_s, most):
    now = second(late_s)
    written = fired_until(now, policy, most=most)
    ticks = [second(number) for number in range(late_s + 1)]
    missed = [tick for tick in ticks if (now - tick).total_seconds() > policy.grace_s]
    began = [each for each in written if each.state == "queued"]
    assert [each.due for each in began if each.cause == "tick"] == ticks[len(missed) :]
    misfired = [each.due for each in began if each.cause == "misfire"]
    expected = {"fire_all": missed, "fire_once": missed[-1:], "skip": []}
    assert misfired == expected[policy.misfire]


def test_one_run_stands_for_all_that_were_missed_though_they_are_too_many_for_one_transaction():
    written = fired_until(second(1000), Policy("fire_once", 0.5), most=planning.MOST)
    assert [each.state for each in written] == ["skipped"] * 4 + ["queued"] * 2
    assert sum(each.cause == "misfire" and each.state == "queued" for each in written) == 1


def reference(overlap: str, events: list[str]) -> list[str]:
    """Play ticks and ends of runs against the plainest bookkeeping."""
    running, waiting, said = 0, False, []
    for event in events:
        if event == "end":
            if running:
                running -= 1
            if not running and waiting:
                running, waiting = 1, False
        elif overlap == "allow" or not running:
            running += 1
            said.append("queued")
        elif overlap == "queue_one" and not waiting:
            waiting = True
            said.append("waiting")
        else:
            said.append("skipped")
    return said


@given(
    overlap=st.sampled_from(["allow", "skip", "queue_one"]),
    events=st.lists(st.sampled_from(["tick", "end"]), max_size=30),
)
def test_overlap_is_as_in_the_plainest_bookkeeping(overlap, events):
    running, waiting, said = 0, False, []
    for event in events:
        if event == "end":
            running = max(running - 1, 0)
            if not running and waiting:
                running, waiting = 1, False
            continue
        found = admitted(Firing(START, START), overlap, Open(running > 0, waiting))
        running += found.state == "queued"
        waiting = waiting or found.state == "waiting"
        said.append(found.state)
    assert said == reference(overlap, events)


def test_of_several_ticks_at_once_the_second_already_overlaps():
    found = due(table(), START, second(2), most=10)
    for overlap, states in (
        ("allow", ["queued", "queued", "queued"]),
        ("skip", ["queued", "skipped", "skipped"]),
        ("queue_one", ["queued", "waiting", "skipped"]),
    ):
        written = firings(found, second(2), Policy(overlap=overlap), Open())
        assert [each.state for each in written] == states
        assert all(each.reason == BUSY for each in written if each.state == "skipped")
