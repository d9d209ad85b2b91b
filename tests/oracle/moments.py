"""Fields that hold a moment; a value may name a whole day, which is meant in UTC."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import Integer, and_, func, literal

from engine_pg.api.search.moments import moment
from engine_pg.errors import Invalid
from oracle.fields import ORDERED, Condition, Element, negated

_DAYS: Final = {"today": 0, "yesterday": 1}


def span(value: str) -> tuple[Element, Element]:
    """Return where the moment or the day that a value names begins, and where it ends."""
    text = value.strip()
    if (days := _DAYS.get(text.lower())) is not None:
        today = func.date_trunc("day", func.now(), "UTC")
        day = func.make_interval(0, 0, 0, literal(1, Integer))
        begin = today - day * literal(days, Integer)
        return begin, begin + day
    at = moment(text)
    if re.search("[:T]", text):
        exact = literal(at)
        return exact, exact
    try:
        return literal(at), literal(at + timedelta(days=1))
    except OverflowError as error:
        raise Invalid(f"{text[:40]!r} is beyond the dates we know") from error


@dataclass(frozen=True, slots=True)
class MomentField:
    """A moment, compared with a moment or with a day."""

    expression: Element

    @property
    def sort_key(self) -> Element:
        """Order by time."""
        return self.expression

    def condition(self, operator: str, value: str, *, exact_case: bool) -> Condition:  # noqa: ARG002  # times have none
        """Compare in any way; a day is equal to all its moments."""
        begin, end = span(value)
        if operator in ("=", "!="):
            upper = self.expression < end if end is not begin else self.expression <= end
            within = and_(self.expression >= begin, upper)
            return within if operator == "=" else negated(within)
        return ORDERED[operator](self.expression, end if operator in (">", "<=") else begin)
