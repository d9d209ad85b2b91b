"""Locks of parents that wait for their children: nobody runs those, and nothing is wrong."""

from __future__ import annotations

from typing import Final

from engine_pg.db.tx import Tx

HELD: Final = """
select count(*)::integer as n from lock_grant g join command c using (command_id)
 where g.member_id is null and c.ended_at is null
   and exists (select from command child
                where child.parent_id = c.command_id and child.ended_at is null)
"""


async def locks_held(tx: Tx) -> int:
    """Return how many grants stand for parents that are parked."""
    row = await tx.first(HELD)
    return row["n"] if row else 0
