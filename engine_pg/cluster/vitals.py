"""What changes all the time about members, so that no feed tells of it: heartbeats and holdings.

For people, as all looks are. Does not promise: that it still holds when it is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from engine_pg.db.tx import Tx

VITALS: Final = """
select m.member_id, m.renewal,
       extract(epoch from clock_timestamp() - m.renewed_at)::float8 as age_s,
       coalesce(g.n, 0) as locks, coalesce(w.n, 0) as waiting
  from member m
  left join (select member_id, count(*) as n from lock_grant group by member_id) g using (member_id)
  left join (select member_id, count(distinct ticket) as n from lock_ticket group by member_id) w
       using (member_id)
"""


@dataclass(frozen=True, slots=True)
class Vitals:
    """A member's heartbeats, how many locks it holds and how many requests of its wait."""

    renewal: int | None = None
    age_s: float | None = None
    locks: int | None = None
    waiting: int | None = None


UNKNOWN: Final = Vitals()
"""Of a member that nobody could be asked about."""


async def vitals(tx: Tx) -> dict[UUID, Vitals]:
    """Return what is known of each member."""
    return {row.pop("member_id"): Vitals(**row) for row in await tx.all(VITALS)}
