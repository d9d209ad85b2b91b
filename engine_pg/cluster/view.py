"""What one member sees of the cluster, look by look.

A look brings the counters of all members; members and leaders come with it only when they are not
what was seen before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

from engine_pg.clock import Clock, boottime
from engine_pg.cluster.placement import Candidate, Leader
from engine_pg.db.tx import Record


@dataclass(slots=True)
class View:
    """The picture as of the last look."""

    candidates: dict[UUID, Candidate] = field(default_factory=dict[UUID, Candidate])
    leaders: dict[str, Leader] = field(default_factory=dict[str, Leader])
    ttls_s: dict[UUID, float] = field(default_factory=dict[UUID, float])
    clock: Clock = boottime
    _moved: dict[UUID, tuple[int, float]] = field(default_factory=dict[UUID, tuple[int, float]])

    def take(self, look: Record) -> bool:
        """Take a look in; tell whether anything but the counters changed."""
        counters: Mapping[str, int] = look["counters"] or {}
        now = self.clock()
        seen = {UUID(member_id): renewal for member_id, renewal in counters.items()}
        moved: dict[UUID, tuple[int, float]] = {}
        for member_id, renewal in seen.items():
            before = self._moved.get(member_id)
            same = before is not None and before[0] == renewal
            moved[member_id] = before if before is not None and same else (renewal, now)
        self._moved = moved
        if "leaders" not in look:
            return False
        members: list[Record] = look["members"] or []
        offers: dict[str | None, frozenset[str]] = {
            key: frozenset(names) for key, names in look["offers"].items()
        }
        self.candidates = {
            UUID(each["member_id"]): _candidate(each, offers.get(each["offers"]))
            for each in members
        }
        self.ttls_s = {UUID(each["member_id"]): float(each["ttl_s"]) for each in members}
        self.leaders = {each["name"]: _leader(each) for each in look["leaders"]}
        return True

    def counters(self) -> list[Record]:
        """Return each live member with its counter and its ttl, as `Watch` takes them."""
        return [
            {"member_id": str(member_id), "renewal": renewal, "ttl_s": self.ttls_s[member_id]}
            for member_id, (renewal, _) in self._moved.items()
            if member_id in self.ttls_s
        ]

    def is_eldest(self, member_id: UUID, count: int) -> bool:
        """Tell whether a member is among the `count` that joined first."""
        order = sorted((each.joined_s, each.member_id) for each in self.candidates.values())
        return any(member_id == eldest for _, eldest in order[:count])

    def silent_s(self, member_id: UUID) -> float:
        """Return for how long a member's counter has stood still, on our own clock."""
        moved = self._moved.get(member_id)
        return float("inf") if moved is None else self.clock() - moved[1]


def _uuid(text: str | None) -> UUID | None:
    return None if text is None else UUID(text)


def _candidate(record: Record, offers: frozenset[str] | None) -> Candidate:
    return Candidate(
        member_id=UUID(record["member_id"]),
        node=record["node"],
        weight=float(record["weight"]),
        draining=record["draining"],
        joined_s=float(record["joined_s"]),
        offers=offers,
    )


def _leader(record: Record) -> Leader:
    return Leader(
        name=record["name"],
        member_id=_uuid(record["member_id"]),
        term=record["term"],
        pinned_node=record["pinned_node"],
        avoid_member_id=_uuid(record["avoid_member_id"]),
    )
