"""Takeover and fair share: how soon what was led is led elsewhere, what a newcomer moves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from chaos.checks import Violation
from chaos.checks.timeline import Span, Timeline

TAKEOVER_S = 0.5
GRACEFUL_S = 0.2
MEASURED = ("kill", "freeze", "cut", "cut one way", "isolate", "stop")


@dataclass(frozen=True, slots=True)
class Handover:
    """One leadership that moved because of a fault; `counts`: it is held against the promise."""

    kind: str
    name: str
    took_s: float
    counts: bool


def handovers(timeline: Timeline) -> list[Handover]:
    """Return the leaderships that left a process because of what befell it."""
    found: list[Handover] = []
    for span in timeline.faults:
        if span.kind in MEASURED:
            found += _of(timeline, span)
    return found


def _of(timeline: Timeline, span: Span) -> Iterator[Handover]:
    target = span.fault["target"]
    begin = _leaving(timeline, span) if span.kind == "stop" else span.begin
    bound_s = GRACEFUL_S if span.kind == "stop" else timeline.ttl_s + TAKEOVER_S
    if span.kind != "stop" and span.end - span.begin < bound_s and span.kind != "kill":
        return  # it may come back in time, and keep what it has
    for name, term in timeline.leads(target, begin).items():
        after = timeline.next_leader(name, term)
        if after is None or after["process"] == target:
            continue
        took_s = after["at"] - begin
        since = begin - timeline.ttl_s
        quiet = timeline.alone(span, after["at"]) and timeline.well(since, after["at"], but=target)
        yield Handover(span.kind, name, took_s, quiet)


def _leaving(timeline: Timeline, span: Span) -> float:
    """Return when a process that was asked to stop began to leave the cluster."""
    target = span.fault["target"]
    return next(
        (
            record["at"]
            for record in timeline.records
            if record["kind"] == "leaving"
            and record["process"] == target
            and record["at"] >= span.begin
        ),
        span.begin,
    )


def check(timeline: Timeline, found: list[Handover], *, slack_s: float) -> Iterator[Violation]:
    """Yield handovers that took too long although everybody else was well."""
    for each in found:
        bound_s = GRACEFUL_S if each.kind == "stop" else timeline.ttl_s + TAKEOVER_S
        if each.counts and each.took_s > bound_s + slack_s:
            yield Violation(
                "takeover", f"{each.name} was led elsewhere {each.took_s:.3f} s after {each.kind}"
            )


def check_newcomers(timeline: Timeline) -> Iterator[Violation]:
    """Yield leaderships that moved, when somebody joined, to anybody but the newcomer."""
    for span in timeline.faults:
        newcomer = f"newcomer-{span.fault['number']}"
        joined = timeline.joined(span, newcomer) if span.kind == "join" else None
        if joined is None or not timeline.alone(span, span.end):
            continue
        since = joined - timeline.ttl_s
        if timeline.others_joined(since, span.end, but=newcomer):
            continue  # they take their share as well, a moment after they came
        if not timeline.well(span.begin - timeline.ttl_s, span.end):
            continue
        for name, led in timeline.led.items():
            for record in led:
                inside = joined < record["at"] < span.end
                before = [each for each in led if each["at"] < record["at"]]
                moved = before and before[-1]["process"] != record["process"]
                left = before and before[-1]["process"] == newcomer
                if inside and moved and not left and record["process"] != newcomer:
                    yield Violation(
                        "fair share", f"{name} moved to {record['process']}, not to {newcomer}"
                    )


def shares(timeline: Timeline) -> list[tuple[int, int]]:
    """Return of each newcomer how many leaderships it took, and how many there were."""
    return [
        (
            len(
                {
                    name
                    for name, led in timeline.led.items()
                    for record in led
                    if record["process"] == f"newcomer-{span.fault['number']}"
                }
            ),
            len(timeline.led),
        )
        for span in timeline.faults
        if span.kind == "join"
    ]
