"""The lines of one process: who goes ahead, and that a crowd does not hold the event loop up."""

from __future__ import annotations

from time import perf_counter

from engine_pg.cluster.keys import LockKey, Mode, Reason, Wanted
from engine_pg.cluster.lines import Entry, Lines

KEY = LockKey("test", "crowded")


def entry(number: int, mode: Mode) -> Entry:
    return Entry((Wanted(KEY, mode),), Reason(), number)


def standing(lines: Lines, modes: list[Mode]) -> list[Entry]:
    entries = [entry(number, mode) for number, mode in enumerate(modes, start=1)]
    for each in entries:
        assert not lines.enter(each)
        each.ticket = each.number
        lines.stand(each)
    return entries


def test_those_in_front_are_the_shared_ones_up_to_the_first_exclusive_one():
    lines, first = Lines(), entry(0, Mode.EXCLUSIVE)
    assert lines.enter(first)
    modes = [Mode.SHARED, Mode.SHARED, Mode.EXCLUSIVE, Mode.SHARED]
    one, two, alone, three = standing(lines, modes)
    assert lines.leave(first) == [one, two]
    assert lines.advance(one)
    assert not lines.advance(alone)
    assert not lines.advance(three)
    assert lines.advance(two)
    assert lines.leave(one) == [alone]
    assert not lines.advance(alone)  # `two` is ahead still
    assert lines.leave(two) == [alone]
    assert lines.advance(alone)
    assert not lines.advance(three)
    assert lines.leave(alone) == [three]
    assert lines.advance(three)
    assert lines.leave(three) == []
    assert lines.enter(entry(9, Mode.EXCLUSIVE))


def test_a_crowd_of_shared_ones_goes_ahead_in_a_moment():
    lines, first = Lines(), entry(0, Mode.EXCLUSIVE)
    assert lines.enter(first)
    crowd = standing(lines, [Mode.SHARED] * 5000)
    started = perf_counter()
    assert lines.leave(first) == crowd
    assert all(lines.advance(each) for each in crowd)
    assert perf_counter() - started < 1.0
