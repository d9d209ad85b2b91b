"""When ticks are: word by word where clocks are put forward and back, and minute by minute."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_pg.errors import Invalid
from engine_pg.schedules.rule import Cron, Every, Timetable

MINUTE = timedelta(minutes=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# What is put forward or back in these zones in 2026: by an hour, by half of one, at midnight.
SHIFTS = {
    "UTC": datetime(2026, 3, 29, tzinfo=UTC),
    "Europe/Berlin": datetime(2026, 3, 29, 1, tzinfo=UTC),
    "America/New_York": datetime(2026, 11, 1, 6, tzinfo=UTC),
    "Australia/Lord_Howe": datetime(2026, 10, 3, 15, 30, tzinfo=UTC),
    "Africa/Cairo": datetime(2026, 4, 23, 22, tzinfo=UTC),
    "America/Santiago": datetime(2026, 4, 5, 3, tzinfo=UTC),
}


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def ticks(rule, since: datetime, until: datetime) -> list[datetime]:
    found = []
    tick = rule.after(since)
    while tick is not None and tick < until:
        found.append(tick)
        tick = rule.after(tick)
    return found


def berlin(expression: str, since: str, until: str) -> list[str]:
    """Return ticks of one night in Berlin, as UTC and what the clock on the wall shows."""
    zone = ZoneInfo("Europe/Berlin")
    return [
        f"{tick:%H:%MZ} {tick.astimezone(zone):%H:%M}"
        for tick in ticks(Cron(expression, "Europe/Berlin"), at(since), at(until))
    ]


FORWARD = ("2026-03-28T22:00Z", "2026-03-29T05:00Z")
BACK = ("2026-10-24T22:00Z", "2026-10-25T05:00Z")


def test_a_set_time_that_is_left_out_comes_right_after_the_gap():
    assert berlin("30 2 * * *", *FORWARD) == ["01:00Z 03:00"]


def test_several_set_times_in_the_gap_come_as_one():
    assert berlin("0,20,40 2,3 * * *", *FORWARD) == ["01:00Z 03:00", "01:20Z 03:20", "01:40Z 03:40"]


def test_a_set_time_that_comes_twice_counts_the_first_time():
    assert berlin("30 2 * * *", *BACK) == ["00:30Z 02:30"]


def test_each_hour_goes_on_as_time_passes():
    assert berlin("0 * * * *", "2026-03-28T23:30Z", "2026-03-29T02:30Z") == [
        "00:00Z 01:00",
        "01:00Z 03:00",
        "02:00Z 04:00",
    ]
    assert berlin("0 * * * *", "2026-10-24T23:30Z", "2026-10-25T02:30Z") == [
        "00:00Z 02:00",
        "01:00Z 02:00",
        "02:00Z 03:00",
    ]


def test_minutes_with_a_star_in_a_set_hour_are_not_made_up_for():
    assert berlin("*/30 2 * * *", *FORWARD) == []
    assert len(berlin("*/30 2 * * *", *BACK)) == 4


def test_seconds_in_front_change_nothing_about_it():
    assert berlin("0 30 2 * * *", *FORWARD) == berlin("30 2 * * *", *FORWARD)
    assert berlin("0 30 2 * * *", *BACK) == berlin("30 2 * * *", *BACK)


def test_a_daily_time_keeps_to_the_wall_through_the_year():
    rule, zone = Cron("35 35 3 * * *", "Europe/Berlin"), ZoneInfo("Europe/Berlin")
    found = ticks(rule, at("2026-01-01T00:00Z"), at("2027-01-01T00:00Z"))
    assert len(found) == 365
    assert {f"{tick.astimezone(zone):%H:%M:%S}" for tick in found} == {"03:35:35"}


def test_an_hour_that_comes_again_once_a_year_comes_again():
    rule = Cron("*/30 2 25 10 *", "Europe/Berlin")
    assert rule.after(at("2026-10-25T00:30Z")) == at("2026-10-25T01:00Z")


def test_a_rule_whose_next_tick_is_decades_away_finds_it():
    assert Cron("0 0 * 2 MON#5", "UTC").after(at("2026-01-01T00:00Z")) == at("2044-02-29T00:00Z")


@pytest.mark.parametrize(
    "text", ["", "* * *", "61 * * * *", "* * * * * * *", "@daily", "x y z a b"]
)
def test_what_is_no_cron_expression_is_refused_in_words(text):
    with pytest.raises(Invalid, match="is no cron expression: "):
        Cron(text, "UTC")


@pytest.mark.parametrize(
    "name", ["", "Berlin", "Europe/Nowhere", "/etc/passwd", "../UTC", "localtime", "right/UTC"]
)
def test_what_is_no_time_zone_is_refused_in_words(name):
    with pytest.raises(Invalid, match="is no time zone: use a name such as"):
        Cron("* * * * *", name)


# --- against every minute


def matches(wall: datetime, minutes: set[int], hours: set[int] | None) -> bool:
    return wall.minute in minutes and (hours is None or wall.hour in hours)


def walls(zone: str, since: datetime, until: datetime):
    """Yield each instant of a span by the minute, with what the clock on the wall shows."""
    moment = since
    while moment < until:
        yield moment, moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
        moment += MINUTE


fields = st.tuples(
    st.sets(st.integers(0, 59), min_size=1, max_size=3),
    st.one_of(st.none(), st.sets(st.integers(0, 4), min_size=1, max_size=3)),
)


@given(zone=st.sampled_from(sorted(SHIFTS)), rule=fields)
def test_ticks_are_those_of_who_looks_at_the_clock_every_minute(zone, rule):
    minutes, hours = rule
    since, until = SHIFTS[zone] - timedelta(hours=7), SHIFTS[zone] + timedelta(hours=7)
    shown = list(walls(zone, since, until))
    if hours is None:
        expected = [moment for moment, wall in shown if matches(wall, minutes, None)]
    else:
        expected = []
        wall = shown[0][1]
        while wall <= shown[-1][1]:
            if matches(wall, minutes, hours):
                expected.append(next(moment for moment, there in shown if there >= wall))
            wall += MINUTE
        expected = sorted(set(expected))
    text = ",".join(map(str, minutes)), "*" if hours is None else ",".join(map(str, hours))
    found = ticks(Cron(f"{text[0]} {text[1]} * * *", zone), since - MINUTE, until)
    assert [each for each in found if each >= since] == expected


moments = st.integers(0, 3 * 10**15).map(lambda micros: EPOCH + timedelta(microseconds=micros))


@given(anchor=moments, seconds=st.integers(1, 10**6), moment=moments)
def test_an_interval_ticks_on_its_grid_and_first_after_the_moment(anchor, seconds, moment):
    tick = Every(seconds, anchor).after(moment)
    assert (tick - anchor) % timedelta(seconds=seconds) == timedelta()
    assert moment < tick <= moment + timedelta(seconds=seconds)


@given(moment=moments, jitter_s=st.floats(0, 59))
def test_jitter_is_bounded_and_the_same_for_everybody(moment, jitter_s):
    one, two = (
        Timetable(name=name, rule=Every(60, moment), jitter_s=jitter_s) for name in ("a", "a")
    )
    tick = one.after(moment)
    assert tick == two.after(moment) == one.at(tick.due)
    assert tick.due <= tick.fires <= tick.due + timedelta(seconds=jitter_s)


def test_jitter_spreads_the_ticks_and_the_schedules():
    def delays(name):
        table = Timetable(name=name, rule=Every(60, at("2026-01-01T00:00Z")), jitter_s=30)
        tick, found = table.after(at("2026-01-01T00:00Z")), []
        while len(found) < 200:
            found.append((tick.fires - tick.due).total_seconds())
            tick = table.after(tick.due)
        return found

    assert 13 < sum(delays("a")) / 200 < 17
    assert delays("a") != delays("b")


def test_after_the_last_year_there_is_no_tick():
    table = Timetable(name="a", rule=Every(3600, EPOCH), starts=at("9999-12-31T23:30Z"))
    assert table.after(EPOCH) is None
    assert (
        Timetable(name="a", rule=Cron("0 0 1 1 *", "UTC"), starts=table.starts).after(EPOCH) is None
    )


def test_no_tick_comes_before_the_start_or_from_the_end_on():
    table = Timetable(
        name="a",
        rule=Cron("0 * * * *", "UTC"),
        starts=at("2026-01-01T10:00Z"),
        ends=at("2026-01-01T12:00Z"),
    )
    first = table.after(at("2025-01-01T00:00Z"))
    assert first.due == at("2026-01-01T10:00Z")
    second = table.after(first.due)
    assert second.due == at("2026-01-01T11:00Z")
    assert table.after(second.due) is None
