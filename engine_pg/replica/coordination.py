"""Who lives and who leads, in the replica: what the feed tells, which is no heartbeat."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, LiteralString
from uuid import UUID

from engine_pg.replica.table import Table

MEMBERS: Final[LiteralString] = "select to_jsonb(t) as row from member t"
LEADERS: Final[LiteralString] = "select to_jsonb(t) as row from leader t"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberRow:
    """A member as its last change left it; its heartbeats are no changes."""

    member_id: UUID
    node: str
    epoch_id: int
    session_number: int
    state: str
    draining: bool
    weight: float
    ttl: timedelta
    address: str
    version: str
    joined_at: datetime
    ended_at: datetime | None = None
    ended_by: UUID | None = None
    end_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderRow:
    """A leadership and whose it is."""

    name: str
    term: int
    member_id: UUID | None = None
    acquired_at: datetime | None = None
    pinned_node: str | None = None
    avoid_member_id: UUID | None = None
    revision: int = 1


COORDINATION: Final[tuple[Table[Any], ...]] = (
    Table(
        kind=MemberRow,
        topic="member",
        copy=MEMBERS,
        key=lambda record: record["member_id"],
        place=lambda row: (row.node, row.joined_at),
        indexes={"node": lambda row: row.node},
    ),
    Table(
        kind=LeaderRow,
        topic="leader",
        copy=LEADERS,
        key=lambda record: record["name"],
        place=lambda row: (row.name,),
        indexes={"member_id": lambda row: row.member_id},
    ),
)
