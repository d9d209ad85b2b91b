"""What a story measured and what of it was promised; and the same over many runs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number; with a bound it is a promise."""

    name: str
    title: str
    value: float
    unit: str = ""
    most: float | None = None
    least: float | None = None

    @property
    def promised(self) -> bool:
        """Return whether somebody was promised anything about it."""
        return self.most is not None or self.least is not None

    @property
    def kept(self) -> bool:
        """Return whether it is within its bounds."""
        above = self.least is None or self.value >= self.least
        return above and (self.most is None or self.value <= self.most)


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of one run, and sentences about what went wrong in it."""

    figures: Sequence[Figure]
    notes: Sequence[str] = ()

    @property
    def kept(self) -> bool:
        """Return whether every promise was kept."""
        return all(figure.kept for figure in self.figures)


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure over all runs."""

    figure: Figure
    lowest: float
    median: float
    highest: float
    broken: int


def spreads(reports: Sequence[Report]) -> list[Spread]:
    """Return each figure's spread, in the order of the first run."""
    found: list[Spread] = []
    for number, figure in enumerate(reports[0].figures):
        same = [report.figures[number] for report in reports]
        values = [each.value for each in same]
        broken = sum(not each.kept for each in same)
        found.append(Spread(figure, min(values), statistics.median(values), max(values), broken))
    return found


def as_json(story: str, reports: Sequence[Report]) -> dict[str, Any]:
    """Return all figures of all runs for a program to read."""
    return {
        "story": story,
        "kept": all(report.kept for report in reports),
        "runs": [
            {
                "kept": report.kept,
                "figures": {
                    figure.name: asdict(figure) | {"kept": figure.kept} for figure in report.figures
                },
                "notes": list(report.notes),
            }
            for report in reports
        ],
    }
