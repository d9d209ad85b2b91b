"""Members and leaders out of a view, as the looks at the database would show them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from itertools import islice
from typing import Final, Literal
from uuid import UUID

from engine_pg.cluster import looks
from engine_pg.cluster.looks import Leader, Member
from engine_pg.cluster.vitals import UNKNOWN, Vitals
from engine_pg.replica.coordination import LeaderRow, MemberRow
from engine_pg.replica.view import View

_REMEMBERED: Final = timedelta(minutes=1)
_PAUSED: Final = 0.9
"""Who has not renewed for so much of its ttl has stopped acting."""


def members(
    view: View,
    now: datetime,
    vitals: Mapping[UUID, Vitals],
    *,
    node: str | None = None,
    ended: bool = False,
    most: int = looks.MOST,
) -> list[Member]:
    """Return the members that live or ended within a minute; `ended`: all that are remembered."""
    rows = view.of(MemberRow) if node is None else _of_node(view, node)
    there = (row for row in rows if ended or _is_there(row, now))
    return [_member(view, row, vitals) for row in islice(there, most)]


def leaders(
    view: View,
    now: datetime,
    *,
    node: str | None = None,
    name: str | None = None,
    most: int = looks.MOST,
) -> list[Leader]:
    """Return every declared name and who leads it."""
    found = (_leader(view, row, now) for row in view.of(LeaderRow) if name in (None, row.name))
    return list(islice((each for each in found if node in (None, each.node)), most))


def _of_node(view: View, node: str) -> list[MemberRow]:
    return sorted(view.of(MemberRow).by("node", node), key=lambda row: row.joined_at)


def _is_there(row: MemberRow, now: datetime) -> bool:
    return row.state == "live" or (row.ended_at is not None and row.ended_at > now - _REMEMBERED)


def _member(view: View, row: MemberRow, vitals: Mapping[UUID, Vitals]) -> Member:
    known = vitals.get(row.member_id, UNKNOWN)
    return Member(
        node=row.node,
        member_id=row.member_id,
        state=_state(row, known.age_s),
        draining=row.draining,
        weight=row.weight,
        epoch_id=row.epoch_id,
        resumed=row.epoch_id == view.epoch_id,
        session_number=row.session_number,
        ttl_s=row.ttl.total_seconds(),
        leaderships=view.of(LeaderRow).count("member_id", row.member_id),
        address=row.address,
        version=row.version,
        joined_at=row.joined_at,
        ended_at=row.ended_at,
        end_reason=row.end_reason,
        **asdict(known),
    )


def _state(row: MemberRow, age_s: float | None) -> Literal["live", "paused", "ended"]:
    if row.state == "ended":
        return "ended"
    silent = age_s is not None and age_s > row.ttl.total_seconds() * _PAUSED
    return "paused" if silent else "live"


def _leader(view: View, row: LeaderRow, now: datetime) -> Leader:
    member = None if row.member_id is None else view.of(MemberRow).get(row.member_id)
    return Leader(
        name=row.name,
        node=None if member is None else member.node,
        member_id=row.member_id,
        term=row.term,
        acquired_at=row.acquired_at,
        age_s=None if row.acquired_at is None else (now - row.acquired_at).total_seconds(),
        held=member is not None and member.state == "live",
        placement={
            "pinned_node": row.pinned_node,
            "avoid_member_id": None if row.avoid_member_id is None else str(row.avoid_member_id),
            "revision": row.revision,
        },
    )
