"""What was seen of one failover, and what it comes to in figures."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from engine_pg.demo.verdict import Report
from lab.askers import Asked
from lab.faults import Kind
from lab.stage import APART, Stage


@dataclass(slots=True)
class Failover:
    """What was seen of one; times are of one clock."""

    kind: Kind
    old: str = ""
    new: str = ""
    began: float = 0.0
    done: float = 0.0  # the fault was complete
    writable: float = 0.0  # the new primary took a write
    open_until: float = 0.0  # the old primary was seen to take writes beside it
    healed: float = 0.0
    whole: float = 0.0
    asked: list[Asked] = field(default_factory=list[Asked])
    violations: list[str] = field(default_factory=list[str])
    lost: int = 0
    report: Report = field(default_factory=lambda: Report([]))

    def figures(self, stage: Stage) -> dict[str, Any]:
        """Return what it came to."""
        commands = {figure.name: figure.value for figure in self.report.figures}
        return {
            "kind": self.kind,
            "old": self.old,
            "new": self.new,
            "write_gap_s": round(longest(self._acknowledged(stage)), 3),
            "writable_s": round(self.writable - self.began, 3),
            "resume_s": round(self._resumed(stage), 3),
            "read_gap_s": round(max(map(longest, self._answered().values())), 3),
            "reads": len(self._of("read")),
            "reads_failed": len([each for each in self._of("read") if not each.good]),
            "whole_s": round(self.whole - self.healed, 3),
            "lost": self.lost,
            **(self._apart(stage) if self.kind == "partition" else {}),
            "commands": int(commands.get("acknowledged", 0)),
            "vms_started": int(commands.get("vms_started", 0)),
            "violations": self.violations,
        }

    @property
    def overlap_s(self) -> float:
        """How long, at least, two servers took writes: until the cut ended."""
        return max(0.0, self.open_until - self.writable)

    def _apart(self, stage: Stage) -> dict[str, float]:
        """Return what befell clients on the old primary's side of a cut."""
        asked = [each for each in self.asked if each.node == APART and each.began > self.done]
        noted = stage.noted("far writer", "acknowledged", since=self.done)
        cut = [entry for entry in noted if self.done < entry["began"] < self.healed]
        return {
            "overlap_s": round(self.overlap_s, 3),
            "refused_apart": len([each for each in asked if each.refused]),
            "aged_apart": len([each for each in asked if each.staleness_s]),
            "acknowledged_apart": len([entry for entry in cut if entry["at"] < self.healed]),
        }

    def _of(self, kind: str) -> list[Asked]:
        return [each for each in self.asked if each.kind == kind]

    def _acknowledged(self, stage: Stage) -> list[float]:
        """Return when writes were acknowledged on the side that goes on."""
        noted = stage.noted("near writer", "acknowledged", since=self.began - 1)
        return [entry["at"] for entry in noted if entry["at"] <= self.whole]

    def _answered(self) -> dict[str, list[float]]:
        """Return when reads were answered, by node."""
        nodes = {each.node for each in self.asked}
        good = [each for each in self._of("read") if each.good]
        return {node: [each.ended for each in good if each.node == node] for node in nodes}

    def _resumed(self, stage: Stage) -> float:
        """Return how long after the new primary took writes work under locks went on."""
        orderly = self.kind == "switchover"  # the old primary works until shortly before
        since = self.writable if orderly else self.began
        worked = stage.noted("near holder", "worked", since=since)
        after = [entry["at"] for entry in worked if orderly or entry["began"] >= self.done]
        return max(0.0, min(after) - self.writable)


def longest(times: Sequence[float]) -> float:
    """Return the longest time between two of them."""
    return max(later - earlier for earlier, later in itertools.pairwise(times))
