"""When ticks are: cron in a time zone, or each so many seconds from an anchor. Pure.

Where clocks are put forward or back, cron goes by Debian's rules. A rule at set hours and minutes
keeps to the clock on the wall: a time that is left out comes at the first instant after the gap,
one that comes twice counts the first time. A rule whose minute or hour begins with `*` keeps to
time as it passes: nothing in the gap, and the hour that comes twice counts twice.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from engine_pg.errors import Invalid

_ZONE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_+/-]{0,63}")
_NO_ZONES: Final = re.compile(r"localtime|factory|posixrules|(posix|right)/.*", re.IGNORECASE)
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001  # what clocks show, wherever
_SECOND: Final = timedelta(seconds=1)
_LONGEST_SHIFT: Final = timedelta(hours=25)
"""No clock was ever put back by more: an hour that comes again, comes again within it."""


@lru_cache(256)
def zone_of(name: str) -> ZoneInfo:
    """Return an IANA time zone; raises `Invalid`. What a machine calls its own is none."""
    if _ZONE.fullmatch(name) and not _NO_ZONES.fullmatch(name):
        try:
            return ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            pass
    raise Invalid(f"{name[:64]!r} is no time zone: use a name such as UTC or Europe/Berlin")


@dataclass(frozen=True, slots=True)
class Every:
    """A tick at the anchor and each so many seconds after it (and before)."""

    seconds: float
    anchor: datetime

    def after(self, moment: datetime) -> datetime:
        """Return the first tick after a moment."""
        step = timedelta(seconds=self.seconds)
        return self.anchor + ((moment - self.anchor) // step + 1) * step


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression of five fields, or six with seconds in front, on the clocks of a zone."""

    expression: str
    zone: str

    def __post_init__(self) -> None:
        zone_of(self.zone)
        try:
            CronSim(self.expression, _EPOCH)
        except CronSimError as error:
            raise Invalid(f"{self.expression[:100]!r} is no cron expression: {error}") from error

    def after(self, moment: datetime) -> datetime | None:
        """Return the first tick after a moment; None: none in 50 years."""
        *_, minute, hour, _, _, _ = self.expression.split()
        if minute.startswith("*") or hour.startswith("*"):
            return self._as_time_passes(moment)
        local = moment.astimezone(zone_of(self.zone))
        for wall in CronSim(self.expression, local.replace(tzinfo=None)):
            found = _instant(wall, zone_of(self.zone))
            if found > moment:
                return found
        return None

    def _as_time_passes(self, moment: datetime) -> datetime | None:
        """Go from one shift of the clocks to the next; between them there is nothing to decide."""
        zone = zone_of(self.zone)
        since = moment.replace(microsecond=0)
        shown = since.astimezone(zone).replace(tzinfo=None)
        while True:
            wall = next(CronSim(self.expression, shown), None)
            if wall is None:
                return None
            found = (wall - _offset(since, zone)).replace(tzinfo=UTC)
            shift = _shift(since, min(found, since + _LONGEST_SHIFT), zone)
            shift = shift or _shift(since, found, zone)
            if shift is None:
                return found
            since = shift
            shown = shift.astimezone(zone).replace(tzinfo=None) - _SECOND


def _offset(moment: datetime, zone: ZoneInfo) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()


def _shift(after: datetime, until: datetime, zone: ZoneInfo) -> datetime | None:
    """Return when the clocks are put forward or back; None: it is as late as before at the end."""
    before = _offset(after, zone)
    if _offset(until, zone) == before:
        return None
    while until - after > _SECOND:
        middle = after + (until - after) // _SECOND // 2 * _SECOND
        if _offset(middle, zone) == before:
            after = middle
        else:
            until = middle
    return until


def _instant(wall: datetime, zone: ZoneInfo) -> datetime:
    """Return the first instant at which the clocks show this, or have left it out."""
    while True:
        found = wall.replace(tzinfo=zone).astimezone(UTC)
        if found.astimezone(zone).replace(tzinfo=None) == wall:
            return found
        wall = wall.replace(second=0) + timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Tick:
    """A tick, known by when it is due; `fires` is later by its jitter."""

    due: datetime
    fires: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Timetable:
    """All ticks of a schedule, from `starts` on and before `ends`."""

    name: str
    rule: Every | Cron
    jitter_s: float = 0.0
    starts: datetime | None = None
    ends: datetime | None = None

    def after(self, moment: datetime) -> Tick | None:
        """Return the first tick after a moment; None: there is none any more."""
        if self.starts is not None and moment < self.starts:
            moment = self.starts - timedelta(microseconds=1)
        try:
            due = self.rule.after(moment)
            if due is None or (self.ends is not None and due >= self.ends):
                return None
            return self.at(due)
        except OverflowError:  # after the last year that there is
            return None

    def at(self, due: datetime) -> Tick:
        """Return the tick that is due at a moment; its jitter is the same at every node."""
        if not self.jitter_s:
            return Tick(due, due)
        drawn = hashlib.blake2b(f"{self.name} {due.timestamp()}".encode(), digest_size=4).digest()
        share = int.from_bytes(drawn) / (1 << 32)
        return Tick(due, due + timedelta(seconds=self.jitter_s * share))
