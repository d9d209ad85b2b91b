"""Who may bury whom: the rules, on a clock that only moves when it is told to."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from engine_pg.cluster.members import Watch
from engine_pg.ids import new_id

ME, OTHER = new_id(), new_id()


class VirtualClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def seen(renewal: int, member_id: UUID = OTHER) -> dict[str, object]:
    return {"member_id": str(member_id), "renewal": renewal, "ttl_s": 5.0}


def beat(
    watch: Watch, clock: VirtualClock, renewal: int, seconds: float, step: float = 0.5
) -> None:
    """Renew and look every `step` seconds; the other's counter stands at `renewal`."""
    for _ in range(round(seconds / step)):
        clock.now += step
        watch.renewed(clock.now - 0.01, clock.now)
        watch.observed([seen(1, ME), seen(renewal)])


def test_a_counter_that_stands_still_for_a_ttl_is_overdue():
    clock = VirtualClock()
    watch = Watch(ME, ttl_s=5.0, clock=clock)
    beat(watch, clock, 7, 5.0)
    assert watch.overdue() == []
    beat(watch, clock, 7, 1.0)
    assert [(each.member_id, each.renewal) for each in watch.overdue()] == [(OTHER, 7)]


def test_a_counter_that_moves_is_never_overdue():
    clock = VirtualClock()
    watch = Watch(ME, ttl_s=5.0, clock=clock)
    for renewal in range(60):
        beat(watch, clock, renewal, 0.5)
        assert watch.overdue() == []


def test_a_counter_is_overdue_a_full_ttl_after_it_moved_last():
    clock = VirtualClock()
    watch = Watch(ME, ttl_s=5.0, clock=clock)
    beat(watch, clock, 7, 10.0)
    beat(watch, clock, 8, 5.0)
    assert watch.overdue() == []
    beat(watch, clock, 8, 1.0)
    assert watch.overdue() != []


def test_who_has_a_longer_ttl_is_not_buried_before_we_were_well_for_as_long():
    clock = VirtualClock()
    watch = Watch(ME, ttl_s=5.0, clock=clock)
    patient = {"member_id": str(OTHER), "renewal": 7, "ttl_s": 20.0}
    watch.observed([patient])
    clock.now += 15.0  # and then the first renewal of ours
    for _ in range(39):
        clock.now += 0.5
        watch.renewed(clock.now - 0.01, clock.now)
        watch.observed([patient])
        assert watch.overdue() == []


def test_nobody_buries_another_right_after_a_stall_of_all_commits():
    clock = VirtualClock()
    watch = Watch(ME, ttl_s=5.0, clock=clock)
    beat(watch, clock, 7, 10.0)
    beat(watch, clock, 8, 0.5)
    clock.now += 4.9  # nobody's commit came through, ours neither
    watch.renewed(clock.now - 4.9, clock.now)
    watch.observed([seen(1, ME), seen(8)])
    clock.now += 0.2
    assert watch.overdue() == []
    beat(watch, clock, 8, 4.5)
    assert watch.overdue() == []
    beat(watch, clock, 8, 1.0)
    assert watch.overdue() != []


def test_nobody_is_buried_in_a_stall_that_stopped_his_counter_a_moment_before_ours():
    clock = VirtualClock()
    watch = Watch(ME, ttl_s=5.0, clock=clock)
    beat(watch, clock, 7, 10.0)
    beat(watch, clock, 8, 0.5)
    clock.now += 0.4
    watch.renewed(clock.now - 0.01, clock.now)
    watch.observed([seen(1, ME), seen(8)])
    clock.now += 4.8  # his counter stands still for a ttl, and so do all commits since our last
    assert watch.overdue() == []


def test_who_was_silent_himself_buries_nobody():
    clock = VirtualClock()
    watch = Watch(ME, ttl_s=5.0, clock=clock)
    beat(watch, clock, 7, 4.0)
    clock.now += 60.0  # the machine slept
    assert watch.overdue() == []


def test_it_never_buries_itself():
    clock = VirtualClock()
    watch = Watch(ME, ttl_s=5.0, clock=clock)
    for _ in range(30):
        beat(watch, clock, 7, 0.5)
    assert ME not in {each.member_id for each in watch.overdue()}


@given(st.lists(st.floats(min_value=0.05, max_value=8.0), min_size=1, max_size=60))
def test_no_pattern_of_delays_buries_a_counter_before_a_full_ttl_of_good_health(delays):
    clock = VirtualClock()
    watch = Watch(ME, ttl_s=5.0, clock=clock)
    healthy_since, last = None, None
    for delay in delays:
        clock.now += delay
        watch.renewed(clock.now - 0.01, clock.now)
        if last is None or clock.now - last > 5.0 / 2:
            healthy_since = clock.now
        last = clock.now
        watch.observed([seen(1, ME), seen(3)])
        if watch.overdue():
            assert clock.now - healthy_since >= 5.0
