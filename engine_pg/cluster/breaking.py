"""Breaking a lock: an operator takes it from whoever holds it, and leaves a trace.

What ran under it ends first. The grant is marked behind its holder's gate, so that no fenced write
of it is under way or begins; its command is over; the holder's lock session is cut, so that the
holder resumes, learns of it, stops and releases. If it does not within the bound, the grant is
deleted.

Does not promise: that an effect under way outside of PostgreSQL is stopped. Whoever gets the key
next has a higher token.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Final, LiteralString
from uuid import UUID

from engine_pg.clock import boottime
from engine_pg.cluster.keys import LockKey
from engine_pg.cluster.members import gate_of
from engine_pg.cluster.topics import LOCKS
from engine_pg.db.database import Database
from engine_pg.db.listener import QUEUE, RING
from engine_pg.db.tx import Record
from engine_pg.errors import Invalid, NotFound

log = logging.getLogger(__name__)

GRANTS: Final[LiteralString] = """
select g.token, g.mode, g.member_id, g.command_id, m.node,
       extract(epoch from m.ttl)::float8 as ttl_s
  from lock_grant g left join member m using (member_id)
 where g.kind = %(kind)s and g.id = %(id)s and g.token = coalesce(%(token)s::bigint, g.token)
"""
BREAK: Final[LiteralString] = """
select lock_break(%(kind)s, %(id)s, %(token)s, %(gate)s::integer, %(by)s, %(reason)s) as broken
"""
CUT: Final[LiteralString] = "select member_cut(%(member)s)"
FINISH: Final[LiteralString] = """
select lock_break_finish(%(kind)s, %(id)s, %(token)s, %(member)s, %(gate)s::integer) as forced
"""
_POLL_S: Final = 0.05
_LONGEST_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Broken:
    """A grant that was broken; `forced`: its holder did not release it by itself in time."""

    key: LockKey
    mode: str
    token: int
    node: str | None
    command_id: UUID | None
    forced: bool


async def break_lock(
    db: Database, key: LockKey, *, by: str, reason: str, token: int | None = None
) -> list[Broken]:
    """Break the grants of a key, or the one with this token; raises `NotFound` if there is none.

    Waits until each holder has let go: a ttl and a half of his at most, else the grant is deleted.
    """
    if not (by.strip() and reason.strip()):
        raise Invalid("whoever breaks a lock says who he is, and why")
    params = {"kind": key.kind, "id": key.id, "token": token}
    async with db.read() as tx:
        grants = await tx.all(GRANTS, params)
    if not grants:
        raise NotFound(f"{key} is not held" + (f" under token {token}" if token else ""))
    why = {"by": by.strip(), "reason": reason.strip()}
    broken = [each for grant in grants if (each := await _break_one(db, key, grant, why))]
    await db.statement(RING, {"topics": [LOCKS, QUEUE]})
    if not broken:
        raise NotFound(f"{key} was given back or taken over at this instant: look again")
    return broken


async def _break_one(db: Database, key: LockKey, grant: Record, why: Record) -> Broken | None:
    """Break a grant, or wait for what somebody else broke; None: it is no more."""
    member: UUID | None = grant["member_id"]
    params = {
        "kind": key.kind,
        "id": key.id,
        "token": grant["token"],
        "member": member,
        "gate": None if member is None else gate_of(member),
    }
    async with db.write() as tx:
        row = await tx.first(BREAK, params | why)
    if not (row and row["broken"]) and not await _stands(db, params):
        return None
    if member is not None:  # only now: who resumes before the commit does not hear of it
        await db.statement(CUT, params)
    log.warning("%s, token %d, was broken by %s: %s", key, grant["token"], why["by"], why["reason"])
    forced = False
    if member is not None and not await _released(db, params, float(grant["ttl_s"])):
        async with db.write() as tx:
            row = await tx.first(FINISH, params)
        forced = bool(row and row["forced"])
    return Broken(key, grant["mode"], grant["token"], grant["node"], grant["command_id"], forced)


async def _released(db: Database, params: Record, ttl_s: float) -> bool:
    deadline = boottime() + min(1.5 * ttl_s, _LONGEST_S)
    while True:
        if not await _stands(db, params):
            return True
        if boottime() > deadline:
            return False
        await asyncio.sleep(_POLL_S)


async def _stands(db: Database, params: Record) -> bool:
    async with db.read() as tx:
        return bool(await tx.all(GRANTS, params))
