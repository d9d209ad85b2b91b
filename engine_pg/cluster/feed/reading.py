"""The statements that read the feed, and what their rows mean.

One statement sees one snapshot: the changes, the snapshot itself, the horizon of retention and the
epoch belong together because they come from one.
"""

from __future__ import annotations

from typing import Final, LiteralString, cast

from engine_pg.cluster.feed.change import Change, Changes, Op
from engine_pg.cluster.feed.cursor import Cursor
from engine_pg.db.tx import Record
from engine_pg.errors import DatabaseAway, Resync

# `barrier` makes of the statement a commit that a standby has acknowledged: a primary that was cut
# off answers plain queries still. It stands beside the snapshot, which was taken before it had an
# xid.
#
# The first branch finds what is new, up to a snapshot if one is given, by the index of xid; `+ 0`
# keeps the planner from walking all there is by number. The second goes on, by number, with what is
# left between two snapshots. It is all there: what the second of them sees had committed, and what
# retention took, the horizon tells.
READ: Final[LiteralString] = """
with stand as materialized (
  select pg_current_snapshot() as seen, epoch.epoch_id, pg_is_in_recovery() as standby,
         (select horizon from feed_horizon where epoch_id = epoch.epoch_id) as horizon,
         case when %(sync)s then set_config('synchronous_commit',
           case current_setting('synchronous_commit') when 'remote_apply' then 'remote_apply'
                else 'on' end, true) end as synchronous,
         case when %(sync)s then pg_logical_emit_message(true, 'engine_pg', '') end as barrier
    from (select feed_epoch() as epoch_id) as epoch)
select s.seen::text, s.epoch_id, s.standby, s.horizon::text, s.synchronous, s.barrier::text, c.*
  from stand as s left join lateral (
    (select change_id, topic, key, op, version, at, payload from change
      where %(after)s::bigint = 0
        and xid >= pg_snapshot_xmin(%(snapshot)s::pg_snapshot)
        and not pg_visible_in_snapshot(xid, %(snapshot)s::pg_snapshot)
        and pg_visible_in_snapshot(xid, coalesce(%(until)s::pg_snapshot, s.seen))
        and (%(topics)s::text[] is null or topic = any (%(topics)s::text[]))
      order by change_id + 0 limit %(limit)s)
    union all
    (select change_id, topic, key, op, version, at, payload from change
      where %(after)s::bigint > 0 and change_id > %(after)s::bigint
        and pg_visible_in_snapshot(xid, %(until)s::pg_snapshot)
        and not pg_visible_in_snapshot(xid, %(snapshot)s::pg_snapshot)
        and (%(topics)s::text[] is null or topic = any (%(topics)s::text[]))
      order by change_id limit %(limit)s)) as c on true
 order by c.change_id
"""
PLACE: Final[LiteralString] = """
select pg_current_snapshot()::text as seen, feed_epoch() as epoch_id, pg_is_in_recovery() as standby
"""
RECORD_EPOCH: Final[LiteralString] = "select cluster_epoch_current()"


def place_of(row: Record) -> Cursor | None:
    """Return the cursor of a statement's own snapshot, or None in an epoch not recorded yet."""
    if row["standby"]:
        raise DatabaseAway("this server is a standby: its snapshots do not tell what runs")
    return None if row["epoch_id"] is None else Cursor(row["epoch_id"], row["seen"])


def changes_of(cursor: Cursor, seen: Cursor, rows: list[Record], limit: int) -> Changes:
    """Return what a read found, `limit + 1` rows at most; raises `Resync`."""
    check(cursor, seen, rows[0]["horizon"])
    found = [row for row in rows if row["change_id"] is not None]
    more = len(found) > limit
    for row in found[:limit]:
        if row["op"] == "resync":
            raise Resync(f"not all that happened to {row['topic']} can be told row by row")
    changes = [_change(row) for row in found[:limit]]
    until = cursor.until or seen.snapshot
    if more:
        rest = Cursor(cursor.epoch_id, cursor.snapshot, until, changes[-1].change_id)
        return Changes(changes, rest, seen, cursor, more=True)
    done = Cursor(cursor.epoch_id, until)
    return Changes(changes, done, seen, cursor, more=until != seen.snapshot)


def check(cursor: Cursor, seen: Cursor, horizon: str | None) -> None:
    """Raise `Resync` for a cursor that this server's feed can't be followed from."""
    if cursor.epoch_id != seen.epoch_id:
        raise Resync(
            f"the cursor is of epoch {cursor.epoch_id}, the database is in {seen.epoch_id}:"
            " transactions have other numbers"
        )
    if cursor.end > seen.end:
        raise Resync("the cursor is of a later time than the database")
    if horizon is not None and cursor.oldest < int(horizon):
        raise Resync("changes that the cursor has not seen were trimmed")


def _change(row: Record) -> Change:
    return Change(
        row["change_id"],
        row["topic"],
        row["key"],
        cast("Op", row["op"]),
        row["version"],
        row["at"],
        row["payload"],
    )
