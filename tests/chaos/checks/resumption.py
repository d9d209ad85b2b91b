"""Resumption: after a restart or a failover, work goes on once the database accepts writes."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from chaos.checks import Violation
from chaos.checks.timeline import Timeline
from chaos.history import Operation

PROMISED_S = 1.0


@dataclass(frozen=True, slots=True)
class Resumption:
    """How long after the first acknowledged commit the first lock was granted, and to all."""

    kind: str
    first_s: float
    all_s: float


def resumptions(timeline: Timeline, operations: Sequence[Operation]) -> list[Resumption]:
    """Return how soon locks were granted or written under after each outage."""
    returned: dict[str, list[float]] = {}
    for operation in operations:
        if operation.outcome == "ok":
            returned.setdefault(operation.process, []).append(operation.ret)
    found: list[Resumption] = []
    for span in timeline.faults:
        at = span.found.get("accepting_at")
        if at is None:
            continue
        firsts = [
            times[index] - at
            for times in map(sorted, returned.values())
            if (index := bisect.bisect_left(times, at)) < len(times) and times[0] < span.begin
        ]
        if firsts:
            found.append(Resumption(span.kind, min(firsts), max(firsts)))
    return found


def check(found: Sequence[Resumption], *, bound_s: float) -> Iterator[Violation]:
    """Yield outages after which nobody worked within the bound."""
    for each in found:
        if each.first_s > bound_s:
            yield Violation(
                "resumption", f"nobody worked for {each.first_s:.3f} s after a {each.kind}"
            )
