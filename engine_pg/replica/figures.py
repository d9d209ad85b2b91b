"""What a replica counts about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Figures:
    """Counts since the start of the node; `lag_s` is from the last change to its being applied."""

    lag_s: float = 0.0
    changes: int = 0
    batches: int = 0
    copies: int = 0
    resyncs: int = 0
    barriers: int = 0
    losses: int = 0
    longest_hold_s: float = 0.0
    reads: dict[str, int] = field(
        default_factory=lambda: {"fresh": 0, "stale": 0, "refused": 0},
    )


@dataclass(frozen=True, slots=True)
class Standing:
    """How a replica stands right now; `age_s` is of what it shows, None: it shows nothing yet."""

    age_s: float | None
    away: bool
    rows: Mapping[str, int]
