"""What each part of the report hands in; a new part is a module and its line in `PARTS`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.ground import Ground


@dataclass(frozen=True, slots=True)
class Found:
    """What a part measured: headline figures, ratios, and everything behind them."""

    details: dict[str, Any]
    figures: dict[str, float | None] = field(default_factory=dict[str, float | None])
    ratios: dict[str, float | None] = field(default_factory=dict[str, float | None])


@dataclass(frozen=True, slots=True)
class Part:
    """One part: its headlines are in every report, `null` where they were not measured."""

    measure: Callable[[Ground, float], Awaitable[Found]]
    figures: tuple[str, ...] = ()
    ratios: tuple[str, ...] = ()
