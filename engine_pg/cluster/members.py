"""Membership: whose counter stands still, and who may bury whom.

No clock is ever compared with another's. An observer believes a member dead when it has watched
the member's renewal counter stand still for a full ttl of its own clock, and nobody buries another
unless all its own renewals were acknowledged in time for one ttl: when every commit stalls, every
lease seems to run out at once, and the first to come back must not end the healthy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, LiteralString
from uuid import UUID

from engine_pg.clock import Clock, boottime
from engine_pg.db.database import Database
from engine_pg.db.tx import Record
from engine_pg.ids import hash32

JOIN: Final[LiteralString] = """
select member_join(%(member)s, %(node)s, make_interval(secs => %(ttl_s)s),
                   %(address)s, %(version)s) as epoch_id
"""
RESUME: Final[LiteralString] = """
select member_resume(%(member)s, %(session)s, %(held)s, %(tickets)s::bigint[],
                     %(commands)s::uuid[], %(leaderships)s) as reply
"""
END: Final[LiteralString] = """
select member_end(%(member)s, %(gate)s, %(renewal)s::bigint, %(by)s, %(reason)s) as ended
"""
WORKER: Final[LiteralString] = """
update member set worker_id = %(worker)s where member_id = %(member)s and state = 'live'
"""

# A heartbeat of a member that has nothing else to say. When it is not `complete`, or `seen` is new,
# a whole batch says what is wrong, follows grants, tells of members and leaders.
RENEW: Final[LiteralString] = """
with member_renew as (
  update member set renewal = renewal + 1, renewed_at = clock_timestamp(),
         expires_at = clock_timestamp() + ttl
   where member_id = %(member)s and session_number = %(session)s and state = 'live'
     and current_setting('transaction_isolation') = 'read committed'
  returning 1)
select exists (select from member_renew)
         and not exists (select from lock_grant
                          where member_id = %(member)s and not advisory_held) as complete,
       extract(epoch from clock_timestamp())::float8 as at,
       array_agg(member_id) as members, array_agg(renewal) as renewals,
       concat(bit_xor(uuid_hash_extended(member_id, revision)), ':',
              (select concat(count(*), ':', sum(revision)) from leader)) as seen
  from member where state = 'live'
"""
LOOK: Final[LiteralString] = """
select bool_or(member_id = %(member)s and session_number = %(session)s) as complete,
       array_agg(member_id) as members, array_agg(renewal) as renewals
  from member where state = 'live'
"""
HEARTBEATS: Final = frozenset({RENEW, LOOK})


_STALLED: Final = 0.5
"""Without an acknowledged renewal for so much of a ttl, commits may stall: others' as well."""


def gate_of(member_id: UUID) -> int:
    """Return the 32-bit advisory key of a member's gate."""
    return hash32(str(member_id))


@dataclass(slots=True)
class _Seen:
    renewal: int
    since: float
    ttl_s: float


@dataclass(frozen=True, slots=True)
class Overdue:
    """A member whose counter stood still at `renewal` for a full ttl."""

    member_id: UUID
    renewal: int


class Watch:
    """What one member has seen of the others, on its own clock; no I/O, no database."""

    def __init__(self, member_id: UUID, *, ttl_s: float, clock: Clock = boottime) -> None:
        self._member_id = member_id
        self._ttl_s = ttl_s
        self._clock = clock
        self._well_since: float | None = None
        self._acknowledged_at = 0.0
        self._seen: dict[UUID, _Seen] = {}

    def renewed(self, sent_at: float, acknowledged_at: float) -> None:
        """Note a renewal of ours; one that came late restarts our health."""
        late = acknowledged_at - self._acknowledged_at > self._ttl_s * _STALLED
        if self._well_since is None or late or acknowledged_at - sent_at > self._ttl_s / 3:
            # Commits stalled, or we did: the others had no chance to show that they are well.
            self._well_since = acknowledged_at
        self._acknowledged_at = acknowledged_at

    def observed(self, members: list[Record]) -> None:
        """Note the counters of all live members."""
        now = self._clock()
        present: set[UUID] = set()
        for each in members:
            member_id = UUID(each["member_id"])
            present.add(member_id)
            seen = self._seen.get(member_id)
            if seen is None or seen.renewal != each["renewal"]:
                self._seen[member_id] = _Seen(each["renewal"], now, float(each["ttl_s"]))
        for member_id in self._seen.keys() - present:
            del self._seen[member_id]

    def overdue(self) -> list[Overdue]:
        """Return whom we may end now: nobody, unless we were well for a full ttl ourselves."""
        now = self._clock()
        if self._well_since is None or now - self._well_since < self._ttl_s:
            return []
        if now - self._acknowledged_at > self._ttl_s * _STALLED:
            return []  # commits stall: the counters stand still because nobody's comes through
        return [
            Overdue(member_id, seen.renewal)
            for member_id, seen in self._seen.items()
            if member_id != self._member_id
            and now - max(seen.since, self._well_since) >= seen.ttl_s
        ]

    def next_due_s(self) -> float:
        """Return in how many seconds somebody could become overdue, if nobody renewed."""
        now = self._clock()
        since = self._well_since if self._well_since is not None else now
        waits = [
            max(seen.since, since) + max(seen.ttl_s, self._ttl_s) - now
            for member_id, seen in self._seen.items()
            if member_id != self._member_id
        ]
        return max(0.0, min(waits, default=self._ttl_s))


async def end_member(
    db: Database, member_id: UUID, *, renewal: int | None, by: UUID, reason: str
) -> bool:
    """End a member in one transaction; False when somebody else did or it has renewed since."""
    params = {
        "member": member_id,
        "gate": gate_of(member_id),
        "renewal": renewal,
        "by": by,
        "reason": reason,
    }
    async with db.write() as tx:
        row = await tx.first(END, params)
    return bool(row and row["ended"])


async def record_worker(db: Database, member_id: UUID, worker_id: int) -> None:
    """Say which queue worker is the member's, so that its end puts the worker's jobs back."""
    await db.statement(WORKER, {"member": member_id, "worker": worker_id})


def reply_of(row: Record) -> Record:
    """Return what one of the statements answered in the form in which a batch answers."""
    counters = dict(zip(map(str, row["members"]), row["renewals"], strict=True))
    view = {"counters": counters} | ({"seen": row["seen"]} if "seen" in row else {})
    return {"results": [], "acquired": None, "ring": [], "view": view, "at": row.get("at")}
