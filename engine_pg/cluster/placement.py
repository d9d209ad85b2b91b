"""Placement: which member should lead what, computed the same by everybody who sees the same.

Weighted rendezvous hashing: each candidate draws a score from its node's name and the singleton's,
the highest leads. When a member comes or goes, only what it gains or leaves behind moves; a
restarted node gets back what it had. Pure: no clock, no I/O.

Does not promise: that the preferred member leads. It says where a leadership belongs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from uuid import UUID

from engine_pg.ids import hash64


@dataclass(frozen=True, slots=True)
class Candidate:
    """A live member, as far as its right to lead goes."""

    member_id: UUID
    node: str
    weight: float = 1.0
    draining: bool = False
    joined_s: float = 0.0
    offers: frozenset[str] | None = None  # None: a node of an older version, which offers all

    def can_lead(self, name: str) -> bool:
        """Tell whether it takes work, and knows how to run this singleton."""
        return not self.draining and (self.offers is None or name in self.offers)


@dataclass(frozen=True, slots=True)
class Leader:
    """A row of the leader table: who runs a singleton, and what an operator wants."""

    name: str
    member_id: UUID | None = None
    term: int = 0
    pinned_node: str | None = None
    avoid_member_id: UUID | None = None


@lru_cache(maxsize=1 << 16)
def _drawn(name: str, node: str) -> float:
    """Return a number above 0 and below 1, the same for the same names on every machine."""
    return (((hash64(f"{name}@{node}") + (1 << 63)) >> 12) + 0.5) / (1 << 52)


def _score(name: str, candidate: Candidate) -> float:
    """Return the score of a candidate; each wins in proportion to its weight."""
    return -(candidate.weight or 1.0) / math.log(_drawn(name, candidate.node))


def preferred(leader: Leader, candidates: Iterable[Candidate]) -> UUID | None:
    """Return who should lead; None: nobody can.

    Each wish narrows the choice only while it leaves somebody: not who was asked to resign, the
    pinned node, not who has weight 0.
    """
    able = [each for each in candidates if each.can_lead(leader.name)]
    able = [each for each in able if each.member_id != leader.avoid_member_id] or able
    able = [each for each in able if each.node == leader.pinned_node] or able
    able = [each for each in able if each.weight > 0] or able
    if not able:
        return None
    # A node's newest life: an older one of the same name has ended, or soon will be.
    best = max(able, key=lambda each: (_score(leader.name, each), each.joined_s, each.member_id))
    return best.member_id


def unsettled(leaders: Iterable[Leader], candidates: Sequence[Candidate]) -> list[str]:
    """Return the names of the leaderships that are vacant, or elsewhere than they belong."""
    found: list[str] = []
    for leader in leaders:
        target = preferred(leader, candidates)
        if target not in (None, leader.member_id):
            found.append(leader.name)
    return found
