"""Fairness, loosely: in a stretch without a fault nobody waits beyond a bound."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from chaos.checks import Violation
from chaos.checks.timeline import Timeline
from chaos.history import Operation


def longest_wait_s(timeline: Timeline, operations: Sequence[Operation]) -> float:
    """Return the longest wait for a lock, faults aside."""
    return max((op.ret - op.call for op in _undisturbed(timeline, operations)), default=0.0)


def check(
    timeline: Timeline, operations: Sequence[Operation], *, bound_s: float
) -> Iterator[Violation]:
    """Yield waits that outlasted the bound while nothing was wrong."""
    for op in _undisturbed(timeline, operations):
        if op.ret - op.call > bound_s:
            yield Violation("fairness", f"a waiter of {op.process} waited {op.ret - op.call:.1f} s")


def _undisturbed(timeline: Timeline, operations: Sequence[Operation]) -> Iterator[Operation]:
    for op in operations:
        if op.op == "acquire" and op.outcome in ("ok", "refused"):
            begin = op.call - timeline.ttl_s
            disturbed = any(span.begin < op.ret and span.end > begin for span in timeline.faults)
            if not disturbed:
                yield op
