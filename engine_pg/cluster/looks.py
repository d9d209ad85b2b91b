"""Looks at the cluster: who lives, leads, holds and waits, for people and their tools.

Reads and nothing else, in one snapshot of any database that has the cluster's tables. Ages are by
the database's clock, for people: no decision rests on them.

Does not promise: that what is shown still holds when it is read. Ask the fence, not this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from engine_pg.cluster.waits import Held, KeyMode, Party, Request
from engine_pg.db.tx import Record, Tx
from engine_pg.errors import Conflict

MOST: Final = 10_000
"""So many rows are shown unless somebody asks for fewer."""

MIGRATED: Final = """
select to_regclass('member') is not null and to_regclass('lock_ticket') is not null as migrated
"""
MEMBERS: Final = """
select m.node, m.member_id, m.draining, m.weight, m.epoch_id, m.session_number, m.renewal,
       m.address, m.version, m.joined_at, m.ended_at, m.end_reason,
       extract(epoch from m.ttl)::float8 as ttl_s,
       extract(epoch from clock_timestamp() - m.renewed_at)::float8 as age_s,
       case when m.state = 'ended' then 'ended'
            when clock_timestamp() > m.renewed_at + m.ttl * 0.9 then 'paused'
            else 'live' end as state,
       m.epoch_id = (select max(epoch_id) from cluster_epoch) as resumed,
       coalesce(l.n, 0) as leaderships, coalesce(g.n, 0) as locks, coalesce(w.n, 0) as waiting
  from member m
  left join (select member_id, count(*) as n from leader group by member_id) l using (member_id)
  left join (select member_id, count(*) as n from lock_grant group by member_id) g
       using (member_id)
  left join (select member_id, count(distinct ticket) as n from lock_ticket group by member_id) w
       using (member_id)
 where (%(node)s::text is null or m.node = %(node)s)
   and (m.state = 'live' or %(ended)s or m.ended_at > clock_timestamp() - interval '1 min')
 order by m.node, m.joined_at limit %(most)s
"""
LEADERS: Final = """
select l.name, m.node, l.member_id, l.term, l.acquired_at,
       extract(epoch from clock_timestamp() - l.acquired_at)::float8 as age_s,
       coalesce(m.state = 'live', false) as held,
       to_jsonb(l) - '{name,member_id,term,acquired_at}'::text[] as placement
  from leader l left join member m using (member_id)
 where (%(node)s::text is null or m.node = %(node)s)
   and (%(name)s::text is null or l.name = %(name)s)
 order by l.name limit %(most)s
"""
LOCKS: Final = """
select g.kind, g.id, g.mode, g.token, m.node, g.member_id, g.command_id, g.user_name, g.reason,
       g.granted_at, g.advisory_held, g.broken_at, g.broken_by,
       extract(epoch from clock_timestamp() - g.granted_at)::float8 as age_s,
       coalesce(m.epoch_id < (select max(epoch_id) from cluster_epoch), false) as unresumed
  from lock_grant g left join member m using (member_id)
 where (%(node)s::text is null or m.node = %(node)s)
   and (%(kind)s::text is null or g.kind = %(kind)s)
   and (%(id)s::text is null or g.id = %(id)s)
 order by g.granted_at, g.token limit %(most)s
"""
TICKETS: Final = """
select t.ticket, t.member_id, m.node,
       min(t.command_id::text)::uuid as command_id, min(t.user_name) as user_name,
       min(t.reason) as reason,
       extract(epoch from clock_timestamp() - min(t.waiting_since))::float8 as age_s,
       jsonb_agg(jsonb_build_array(t.kind, t.id, t.mode) order by t.kind, t.id) as keys
  from lock_ticket t join member m using (member_id)
 group by t.ticket, t.member_id, m.node order by t.ticket limit %(most)s
"""
WANTED_GRANTS: Final = """
select g.kind, g.id, g.mode, g.token, m.node, g.member_id, g.command_id, g.user_name, g.reason,
       extract(epoch from clock_timestamp() - g.granted_at)::float8 as age_s
  from lock_grant g left join member m using (member_id)
 where exists (select from lock_ticket t where t.kind = g.kind and t.id = g.id)
    or (g.kind, g.id) in (select kind, id from unnest(%(kinds)s::text[], %(ids)s::text[])
                                            as k(kind, id))
 order by g.token
"""
LOCK_COUNTS: Final = """
select count(*) as held, count(*) filter (where g.member_id is null) as orphaned,
       count(*) filter (where m.epoch_id < (select max(epoch_id) from cluster_epoch)) as unresumed,
       count(*) filter (where g.broken_at is not null) as broken,
       extract(epoch from clock_timestamp() - min(g.granted_at))::float8 as oldest_s
  from lock_grant g left join member m using (member_id)
"""
WAIT_COUNTS: Final = """
select count(distinct ticket) as requests,
       extract(epoch from clock_timestamp() - min(waiting_since))::float8 as oldest_s
  from lock_ticket
"""
EPOCH: Final = """
select epoch_id, timeline, recorded_at from cluster_epoch order by epoch_id desc limit 1
"""
LOCK_TABLE: Final = """
select (select count(*) from pg_locks
         where not fastpath and locktype <> 'virtualxid' and mode <> 'SIReadLock') as used,
       current_setting('max_locks_per_transaction')::bigint
       * (current_setting('max_connections')::bigint
          + current_setting('max_prepared_transactions')::bigint) as capacity
"""
"""Of the whole server: at its end not only locks fail, but new connections too."""


@dataclass(frozen=True, slots=True)
class Member:
    """A member; `paused`: without a renewal for so long that it must have stopped acting.

    None is what nobody knows while the database is away.
    """

    node: str
    member_id: UUID
    state: Literal["live", "paused", "ended"]
    draining: bool
    weight: float
    epoch_id: int
    resumed: bool
    session_number: int
    renewal: int | None
    age_s: float | None
    ttl_s: float
    leaderships: int
    locks: int | None
    waiting: int | None
    address: str
    version: str
    joined_at: datetime
    ended_at: datetime | None
    end_reason: str | None


@dataclass(frozen=True, slots=True)
class Leader:
    """A declared name and who leads it; `placement`: what was ordered about it."""

    name: str
    node: str | None
    member_id: UUID | None
    term: int
    acquired_at: datetime | None
    age_s: float | None
    held: bool
    placement: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Lock:
    """A grant; without a member it awaits the adopter of its command."""

    kind: str
    id: str
    mode: str
    token: int
    node: str | None
    member_id: UUID | None
    command_id: UUID | None
    user_name: str
    reason: str
    granted_at: datetime
    age_s: float
    advisory_held: bool
    unresumed: bool
    broken_at: datetime | None
    broken_by: str | None


@dataclass(frozen=True, slots=True)
class LockTable:
    """What PostgreSQL's table of locks holds, and how much it has room for at least."""

    used: int
    capacity: int

    @property
    def alarming(self) -> bool:
        """Whether more than half is used."""
        return self.used * 2 > self.capacity


@dataclass(frozen=True, slots=True)
class Totals:
    """What is counted of locks and waiters, and the epoch in which it was."""

    epoch_id: int
    timeline: int
    epoch_since: datetime
    held: int
    orphaned: int
    unresumed: int
    broken: int
    waiting: int
    oldest_lock_s: float | None
    oldest_wait_s: float | None


async def check_migrated(tx: Tx) -> None:
    """Raise `Conflict` when the database lacks the tables that the looks need."""
    row = await tx.first(MIGRATED)
    if row is None or not row["migrated"]:
        raise Conflict(
            "the database is empty or of an older engine: run `engine-pg db upgrade` first"
        )


async def members(
    tx: Tx, *, node: str | None = None, ended: bool = False, most: int = MOST
) -> list[Member]:
    """Return the members that live or ended within a minute; `ended`: all that are remembered."""
    params = {"node": node, "ended": ended, "most": most}
    return [Member(**row) for row in await tx.all(MEMBERS, params)]


async def leaders(
    tx: Tx, *, node: str | None = None, name: str | None = None, most: int = MOST
) -> list[Leader]:
    """Return every declared name and who leads it."""
    params = {"node": node, "name": name, "most": most}
    return [Leader(**row) for row in await tx.all(LEADERS, params)]


async def locks(
    tx: Tx,
    *,
    kind: str | None = None,
    id_: str | None = None,
    node: str | None = None,
    most: int = MOST,
) -> list[Lock]:
    """Return the grants, the oldest first."""
    params = {"kind": kind, "id": id_, "node": node, "most": most}
    return [Lock(**row) for row in await tx.all(LOCKS, params)]


async def requests(tx: Tx, *, most: int = MOST) -> list[Request]:
    """Return who waits with a ticket, in the order of the tickets."""
    return [
        Request(tuple(KeyMode(*key) for key in row["keys"]), _party(row), row["ticket"])
        for row in await tx.all(TICKETS, {"most": most})
    ]


async def wanted_grants(tx: Tx, local: Sequence[Request] = ()) -> list[Held]:
    """Return the grants of all keys that somebody waits for, with or without a ticket."""
    keys = [key for request in local for key in request.keys]
    params = {"kinds": [key.kind for key in keys], "ids": [key.id for key in keys]}
    return [
        Held(KeyMode(row["kind"], row["id"], row["mode"]), row["token"], _party(row))
        for row in await tx.all(WANTED_GRANTS, params)
    ]


def _party(row: Record) -> Party:
    return Party(
        member_id=row["member_id"],
        node=row["node"],
        command_id=row["command_id"],
        user_name=row["user_name"],
        reason=row["reason"],
        age_s=row["age_s"],
    )


async def lock_table(tx: Tx) -> LockTable:
    """Return how full the server's table of locks is."""
    row = await tx.first(LOCK_TABLE)
    assert row is not None
    return LockTable(row["used"], row["capacity"])


async def totals(tx: Tx) -> Totals:
    """Return what is counted of locks and waiters."""
    epoch = await tx.first(EPOCH) or {"epoch_id": 0, "timeline": 0, "recorded_at": None}
    held = await tx.first(LOCK_COUNTS) or {}
    waiting = await tx.first(WAIT_COUNTS) or {}
    return Totals(
        epoch_id=epoch["epoch_id"],
        timeline=epoch["timeline"],
        epoch_since=epoch["recorded_at"],
        held=held["held"],
        orphaned=held["orphaned"],
        unresumed=held["unresumed"],
        broken=held["broken"],
        waiting=waiting["requests"],
        oldest_lock_s=held["oldest_s"],
        oldest_wait_s=waiting["oldest_s"],
    )
