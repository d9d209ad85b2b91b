"""The story of a database that crashes under running commands, and of work that goes on after it.

What a command held at the moment of the crash must be its own afterwards, under the same token,
until it ends; and no member may be taken for dead because the database was away.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, LiteralString
from uuid import UUID

from engine_pg.clock import boottime
from engine_pg.db.tx import Record
from engine_pg.demo.story import Scene
from engine_pg.demo.verdict import Figure
from engine_pg.demo.watch import POLL_S, Watch
from engine_pg.errors import EngineError, Unavailable

PROMISED_S: Final = 1.0
"""How soon work goes on after the database accepts writes."""

HELD: Final[LiteralString] = """
select c.command_id, c.attempt, g.kind, g.id, g.token, m.session_number
  from command c join lock_grant g using (command_id) join member m on m.member_id = g.member_id
 where c.ended_at is null
"""
STILL: Final[LiteralString] = """
select c.command_id, c.attempt, c.ended_at is not null as final,
       g.kind, g.id, g.token, m.session_number
  from command c
  left join lock_grant g using (command_id) left join member m on m.member_id = g.member_id
 where c.command_id = any(%(ids)s::uuid[])
"""
NOW: Final = "select clock_timestamp() as now, pg_postmaster_start_time() as started"
FIRST_WORK: Final[LiteralString] = """
select min(at) as at
  from (select started_at as at from command_step union all select ended_at from command_step) w
 where at > %(started)s
"""
SURVIVORS: Final[LiteralString] = """
select count(*) as live from member where member_id = any(%(ids)s::uuid[]) and state = 'live'
"""
_LONG_CALL_S: Final = 3.0  # outlasts the outage, so that grants are needed before and after it
_LEAST_HELD: Final = 8
_CHOICE_S: Final = 30.0
_BACK_S: Final = 30.0
_RESUMED_S: Final = 10.0
_WARM_UP_S: Final = (0.5, 2.0)

Key = tuple[UUID, int, str, str, int]


def _key(row: Record) -> Key:
    """Return a grant with its command and attempt: an adopter's would be a later one."""
    return row["command_id"], row["attempt"], row["kind"], row["id"], row["token"]


class Held:
    """The grants of running commands at one moment, and what becomes of each."""

    def __init__(self, rows: Sequence[Record]) -> None:
        self._sessions = {_key(row): int(row["session_number"]) for row in rows}
        self._fates: dict[Key, str] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def fates(self) -> Counter[str]:
        """Return how many were resumed, over with their command, or broken."""
        return Counter(self._fates.values())

    async def follow(self, watch: Watch, bound_s: float) -> None:
        """Look until the fate of each grant is known, or the bound is reached."""
        deadline = boottime() + bound_s
        ids = list({key[0] for key in self._sessions})
        while len(self._fates) < len(self._sessions) and boottime() < deadline:
            self.judge(await watch.rows(STILL, {"ids": ids}))
            await asyncio.sleep(POLL_S)

    def judge(self, rows: Sequence[Record]) -> None:
        """Tell the fate of each grant from the commands and grants that there are now."""
        over = {(row["command_id"], row["attempt"]) for row in rows if row["final"]}
        now = {_key(row): row["session_number"] for row in rows}
        for key, number in self._sessions.items():
            if key in self._fates:
                continue
            if key not in now:
                self._fates[key] = "over" if key[:2] in over else "broken"
            elif (now[key] or 0) > number:
                self._fates[key] = "resumed"


class Outage:
    """Looks until the database has been away and is back; keeps what it saw last before."""

    def __init__(self, watch: Watch, held: Held | None = None) -> None:
        self._watch = watch
        self.held = held or Held(())
        self.away_s = 0.0
        self.accepting: Mapping[str, Any] = {}

    async def until_enough_is_held(self) -> None:
        """Wait for a moment at which running commands hold some grants."""
        deadline = boottime() + _CHOICE_S
        while len(Held(await self._watch.rows(HELD))) < _LEAST_HELD:
            if boottime() > deadline:
                raise Unavailable(f"not {_LEAST_HELD} grants were held within {_CHOICE_S:g} s")
            await asyncio.sleep(POLL_S)

    async def follow(self) -> None:
        """Return when the database accepts connections again."""
        seen_at = boottime()
        while True:
            try:
                self.held = Held(await self._watch.rows(HELD))
            except EngineError:
                break
            seen_at = boottime()
            await asyncio.sleep(POLL_S)
        while boottime() < seen_at + _BACK_S:
            await asyncio.sleep(POLL_S)
            try:
                self.accepting = (await self._watch.rows(NOW))[0]
            except EngineError:
                continue
            self.away_s = boottime() - seen_at
            return
        raise Unavailable(f"the database is not back after {_BACK_S:g} s")


async def restart_database(scene: Scene) -> Sequence[Figure]:
    """Crash PostgreSQL under running commands, start it again, and see what became of them."""
    target = scene.target
    await target.slow_down(_LONG_CALL_S, hosts=len(target.host_ports) // 2)
    await asyncio.sleep(scene.dice.uniform(*_WARM_UP_S))
    members = await scene.watch.members()
    outage = Outage(scene.watch)
    await outage.until_enough_is_held()
    scene.tell("Crashing PostgreSQL")
    async with asyncio.TaskGroup() as group:
        group.create_task(target.restart_database())
        await outage.follow()
        scene.tell(f"It is back after {outage.away_s:.1f} s")
        await outage.held.follow(scene.watch, _RESUMED_S)
    await target.heal()
    work_s = await _work_after(scene.watch, outage.accepting)
    ttl_s = max(member["ttl_s"] for member in members)
    await asyncio.sleep(ttl_s + PROMISED_S)  # whoever was to be taken for dead, would be by now
    ids = [member["member_id"] for member in members]
    live = (await scene.watch.rows(SURVIVORS, {"ids": ids}))[0]["live"]
    fates = outage.held.fates
    unsettled = len(outage.held) - fates.total()
    return [
        Figure("away_s", "the database was away", outage.away_s, "s"),
        Figure("work_s", "until work went on, once it was back", work_s, "s", most=PROMISED_S),
        Figure("grants", "grants held by running commands", len(outage.held), least=1),
        Figure("resumed", "of these held on under the same token", fates["resumed"]),
        Figure("over", "of these over, with their command", fates["over"]),
        Figure("broken", "of these broken", fates["broken"] + unsettled, most=0),
        Figure("members", "members", len(members)),
        Figure("ended", "members that were taken for dead", len(members) - live, most=0),
    ]


async def _work_after(watch: Watch, accepting: Mapping[str, datetime]) -> float:
    """Return how long after the database was back a step of a command was written."""
    deadline = boottime() + _RESUMED_S
    while boottime() < deadline:
        first = (await watch.rows(FIRST_WORK, {"started": accepting["started"]}))[0]["at"]
        if first is not None:
            return max(0.0, (first - accepting["now"]).total_seconds())
        await asyncio.sleep(POLL_S)
    return _RESUMED_S
