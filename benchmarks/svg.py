"""Charts as SVG: groups of bars, each with a line up to a second value. No library, no scripts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

COLOURS: Final = ("#1f6f8b", "#c8553d", "#e0a458", "#8f6aa8", "#6b8f5e", "#7d7d7d")
_WIDTH: Final = 820
_HEIGHT: Final = 400
_LEFT: Final = 70
_TOP: Final = 76
_BOTTOM: Final = 46
_BAR_SHARE: Final = 0.82  # of a group's width: the rest parts it from the next one


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar, and up to where a thin line goes on above it."""

    value: float
    reaches: float | None = None


@dataclass(frozen=True, slots=True)
class Chart:
    """Groups of bars on one logarithmic scale; `bars` by series and group, where measured."""

    title: str
    subtitle: str
    unit: str
    groups: Sequence[str]
    series: Sequence[str]
    bars: Mapping[tuple[str, str], Bar]

    def svg(self) -> str:
        """Return the picture."""
        scale = _Scale.of(_values(self.bars.values()))
        parts = [_head(self), *_grid(scale), *_legend(self.series)]
        for number, group in enumerate(self.groups):
            parts += self._group(scale, number, group)
        return "\n".join([*parts, "</svg>"]) + "\n"

    def _group(self, scale: _Scale, number: int, group: str) -> list[str]:
        width = (_WIDTH - _LEFT - 20) / len(self.groups)
        start = _LEFT + width * (number + (1 - _BAR_SHARE) / 2)
        step = width * _BAR_SHARE / len(self.series)
        middle = _LEFT + width * (number + 0.5)
        parts = [_text(middle, _HEIGHT - 22, group)]
        for place, name in enumerate(self.series):
            bar = self.bars.get((name, group))
            colour = COLOURS[place % len(COLOURS)]
            parts += _bar(scale, bar, (start + step * place, step), colour)
        return parts


@dataclass(frozen=True, slots=True)
class _Scale:
    low: int  # powers of ten
    high: int

    @classmethod
    def of(cls, values: Sequence[float]) -> _Scale:
        shown = [value for value in values if value > 0] or [1.0]
        low = math.floor(math.log10(min(shown)) - 0.15)  # the smallest bar can be seen
        return cls(low, max(low + 1, math.ceil(math.log10(max(shown)))))

    def y(self, value: float) -> float:
        height = _HEIGHT - _TOP - _BOTTOM
        share = (math.log10(max(value, 10.0**self.low)) - self.low) / (self.high - self.low)
        return _TOP + height * (1 - share)


def _values(bars: Iterable[Bar]) -> list[float]:
    return [value for bar in bars for value in (bar.value, bar.reaches) if value is not None]


def _head(chart: Chart) -> str:
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
            ' font-family="system-ui, sans-serif" font-size="12" fill="#222">',
            f"<title>{escape(chart.title)}</title>",
            f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
            _text(_LEFT, 22, chart.title, anchor="start", size=15),
            _text(_LEFT, 40, chart.subtitle, anchor="start", colour="#555"),
            _text(_LEFT - 8, _TOP - 12, chart.unit, anchor="end", colour="#555"),
        )
    )


def _grid(scale: _Scale) -> list[str]:
    parts: list[str] = []
    for power in range(scale.low, scale.high + 1):
        y = scale.y(10.0**power)
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - 20}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
        )
        parts.append(_text(_LEFT - 8, y + 4, f"{10.0**power:,.10g}", anchor="end", colour="#555"))
    return parts


def _legend(series: Sequence[str]) -> list[str]:
    parts: list[str] = []
    x = float(_LEFT)
    for place, name in enumerate(series):
        colour = COLOURS[place % len(COLOURS)]
        parts.append(f'<rect x="{x:.1f}" y="50" width="10" height="10" fill="{colour}"/>')
        parts.append(_text(x + 14, 59, name, anchor="start"))
        x += 32 + 7 * len(name)
    return parts


def _bar(scale: _Scale, bar: Bar | None, place: tuple[float, float], colour: str) -> list[str]:
    x, width = place
    middle, bottom = x + width / 2, _HEIGHT - _BOTTOM
    if bar is None:
        return [_text(middle, bottom - 6, "n/a", colour="#888", size=10)]
    top = scale.y(bar.value)
    parts = [
        f'<rect x="{x + 1:.1f}" y="{top:.1f}" width="{width - 2:.1f}"'
        f' height="{bottom - top:.1f}" fill="{colour}"/>'
    ]
    highest = top
    if bar.reaches is not None:
        highest = scale.y(bar.reaches)
        parts.append(
            f'<path d="M{middle:.1f} {top:.1f}V{highest:.1f}'
            f'M{middle - 4:.1f} {highest:.1f}h8" stroke="{colour}" fill="none"/>'
        )
    return [*parts, _text(middle, highest - 5, _short(bar.value), size=10)]


def _text(
    x: float, y: float, text: str, *, anchor: str = "middle", size: int = 12, colour: str = "#222"
) -> str:
    style = f'text-anchor="{anchor}" font-size="{size}" fill="{colour}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'


def _short(value: float) -> str:
    if value >= 10_000:
        return f"{value / 1000:.1f}k"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
