"""Fields that hold a moment; a value may name a whole day, which is meant in UTC."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from engine_pg.api.search.fields import ORDERED, Test, Value, either
from engine_pg.errors import Invalid
from engine_pg.replica.view import View

_DAYS: Final = {"today": 0, "yesterday": 1}
_DAY: Final = timedelta(days=1)


def _in_format(format_: str, text: str) -> datetime:
    return datetime.strptime(text, format_).replace(tzinfo=UTC)


_READERS: Final[tuple[Callable[[str], datetime], ...]] = (
    datetime.fromisoformat,
    *(partial(_in_format, f) for f in ("%m/%d/%Y", "%m/%d/%y", "%m/%d/%Y %H:%M:%S")),
)


def moment(text: str) -> datetime:
    """Return the moment that a text names, or the beginning of the day."""
    for read in _READERS:
        try:
            at = read(text)
        except ValueError:
            continue
        return at if at.tzinfo else at.replace(tzinfo=UTC)
    raise Invalid(f"{text[:40]!r} is not a date that the search can compare with")


def span(value: str, now: datetime) -> tuple[datetime, datetime]:
    """Return where the moment or the day that a value names begins, and where it ends."""
    text = value.strip()
    if (days := _DAYS.get(text.lower())) is not None:
        today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        begin = today - _DAY * days
        return begin, begin + _DAY
    at = moment(text)
    if re.search("[:T]", text):
        return at, at
    try:
        return at, at + _DAY
    except OverflowError as error:
        raise Invalid(f"{text[:40]!r} is beyond the dates we know") from error


@dataclass(frozen=True, slots=True)
class MomentField:
    """A moment, compared with a moment or with a day."""

    value: Value

    @property
    def sort_key(self) -> Value:
        """Order by time."""
        return self.value

    def test(self, view: View, operator: str, value: str, *, exact_case: bool) -> Test:  # noqa: ARG002  # times have none
        """Compare in any way; a day is equal to all its moments."""
        begin, end = span(value, view.at)
        of = self.value
        if operator in ("=", "!="):
            if begin == end:
                return either(lambda row: of(view, row) == begin, operator)
            return either(lambda row: begin <= of(view, row) < end, operator)
        compare, bound = ORDERED[operator], end if operator in (">", "<=") else begin
        return lambda row: compare(of(view, row), bound)
