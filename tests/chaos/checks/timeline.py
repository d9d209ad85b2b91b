"""What the checkers of liveness share: who led what when, who was well, when faults were."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Record = Mapping[str, Any]
AHEAD_S = 0.2  # a fault that had ended longer than a ttl and this ago no longer counts


@dataclass(frozen=True, slots=True)
class Span:
    """One fault, from its beginning to when it was undone, with what was found."""

    fault: Record
    begin: float
    end: float
    found: Record

    @property
    def kind(self) -> str:
        return self.fault["kind"]


class Timeline:
    """The records of a run, indexed."""

    def __init__(self, records: Sequence[Record], *, ttl_s: float) -> None:
        self.ttl_s = ttl_s
        self.records = records
        self.faults = _spans(records)
        self.led: dict[str, list[Record]] = defaultdict(list)
        self._unwell: list[Record] = []
        self._joined: list[Record] = []
        for record in records:
            if record["kind"] == "led":
                self.led[record["name"]].append(record)
            elif record["kind"] == "unwell":
                self._unwell.append(record)
            elif record["kind"] == "joined":
                self._joined.append(record)

    def leads(self, process: str, at: float) -> dict[str, int]:
        """Return what a process leads at a moment, with the terms."""
        own: dict[str, int] = {}
        for record in self.records:
            if record["at"] > at:
                break
            if record["process"] != process:
                continue
            if record["kind"] == "led":
                own[record["name"]] = record["term"]
            elif record["kind"] == "unled":
                own.pop(record["name"], None)
            elif record["kind"] == "joined":
                own.clear()
        return own

    def next_leader(self, name: str, term: int) -> Record | None:
        """Return the first record of a later term of a name."""
        return next((each for each in self.led[name] if each["term"] > term), None)

    def well(self, begin: float, end: float, *, but: str = "") -> bool:
        """Say whether every process but one was well all the time."""
        return not any(
            begin <= record["at"] <= end and record["process"] != but for record in self._unwell
        )

    def joined(self, span: Span, process: str) -> float | None:
        """Return when a process joined during a fault, if it did."""
        times = [each["at"] for each in self._joined if each["process"] == process]
        return next((at for at in times if span.begin <= at <= span.end), None)

    def others_joined(self, begin: float, end: float, *, but: str) -> bool:
        """Say whether any process but one joined between two moments."""
        return any(begin <= each["at"] <= end and each["process"] != but for each in self._joined)

    def alone(self, span: Span, end: float) -> bool:
        """Say whether no other fault was near a fault until `end`."""
        begin = span.begin - self.ttl_s - AHEAD_S
        return not any(
            other is not span and other.begin < end and other.end > begin for other in self.faults
        )


def _spans(records: Sequence[Record]) -> list[Span]:
    ended = {record["number"]: record for record in records if record["kind"] == "healed"}
    return [
        Span(
            {**record, "kind": record["fault"]},
            record["at"],
            ended[record["number"]]["at"],
            ended[record["number"]],
        )
        for record in records
        if record["kind"] == "fault" and record["number"] in ended
    ]
