"""Cursors: their text, and which of two has seen more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_pg.cluster.feed import Cursor
from engine_pg.cluster.feed.cursor import Seen
from engine_pg.errors import Invalid


@st.composite
def snapshots(draw):
    end = draw(st.integers(2, 12))
    oldest = draw(st.integers(1, end))
    running = draw(st.sets(st.integers(oldest, end))) - {end}
    oldest = min(running, default=end)
    return f"{oldest}:{end}:{','.join(map(str, sorted(running)))}"


def sees(text, xid):
    _, end, running = text.split(":")
    return xid < int(end) and str(xid) not in running.split(",")


@given(snapshots(), snapshots())
def test_one_covers_another_when_it_sees_all_that_that_sees(one, other):
    truth = all(sees(one, xid) for xid in range(1, 20) if sees(other, xid))
    assert Cursor(1, one).covers(Cursor(1, other)) == truth


@given(snapshots(), snapshots(), st.integers(0, 10**15))
def test_a_cursor_is_read_as_it_was_written(one, other, after):
    for cursor in (Cursor(3, one), Cursor(3, one, other, after)):
        assert Cursor.parse(str(cursor)) == cursor


def test_nothing_of_another_epoch_is_covered():
    assert Cursor(1, "5:9:5").covers(Cursor(1, "4:9:4,5"))
    assert not Cursor(2, "5:9:5").covers(Cursor(1, "4:9:4,5"))


def test_who_is_half_way_covers_what_he_started_from_and_no_more():
    half = Cursor(1, "5:5:", "9:9:", 7)
    assert half.covers(Cursor(1, "5:5:"))
    assert not half.covers(Cursor(1, "6:6:"))
    assert not half.covers(Cursor(1, "9:9:"))
    assert half.covers(Cursor(1, "5:5:", "9:9:", 6))
    assert not half.covers(Cursor(1, "5:5:", "9:9:", 8))
    assert Cursor(1, "9:9:").covers(half)


@pytest.mark.parametrize(
    "text",
    [
        *("", "1", "1/", "x/5:5:", "1/5:5", "1/6:5:", "1/5:9:4", "1/5:9:6,5", "1/5:9:5,5"),
        *("1/5:9:9", "1/5:5:/9:9:", "1/5:5:/9:9:/x", "1/0:0:", "1/5:5:/9:8:/1", "1/5:5: "),
        *("1/5:5:\n", "\u0663/5:5:", "1/" + "9" * 40 + ":1:"),
    ],
)
def test_what_is_no_cursor_is_refused(text):
    with pytest.raises(Invalid):
        Cursor.parse(text)


def test_a_snapshot_of_postgresql_is_read():
    assert Seen.parse("10:20:10,14,15") == Seen(10, 20, frozenset({10, 14, 15}))
