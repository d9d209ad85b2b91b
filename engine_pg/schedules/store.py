"""The table `schedule`: what is defined, and at which tick each one stands.

Whoever changes the times of a schedule finds its next tick anew, from now on: what was due under
the old times and has not fired, does not fire. Triggers give the version and write the event.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, LiteralString

from engine_pg.commands.definition import Definition as Command
from engine_pg.configuration.store import AUTHOR, Author
from engine_pg.db.tx import Record, Tx
from engine_pg.errors import Conflict, Invalid, NotFound, Outdated
from engine_pg.schedules.declared import DECLARED
from engine_pg.schedules.definition import Definition, changed
from engine_pg.schedules.planning import Firing
from engine_pg.schedules.rows import ScheduleRow, schedule_of
from engine_pg.schedules.rule import Tick

TOPIC: Final = "schedule"
"""The doorbell of changed schedules, and their topic in the change feed."""
_LONGEST: Final = 1000
_SHOWN: Final = 60
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")

LISTED: Final[LiteralString] = "select * from schedule order by name"
GET: Final[LiteralString] = "select * from schedule where name = %(name)s"
LOCKED: Final[LiteralString] = """
select s.*, clock_timestamp() as now from schedule s where name = %(name)s for update
"""
DECLARE: Final[LiteralString] = """
insert into schedule (name, description, kind, action, subject_id, params, cron, every_s, zone,
                      starts_at, ends_at, jitter_s, misfire, grace_s, overlap, keep_runs, declared)
values (%(name)s, %(description)s, %(kind)s, %(action)s, %(subject_id)s, %(params)s, %(cron)s,
        %(every_s)s, %(zone)s, %(starts_at)s, %(ends_at)s, %(jitter_s)s, %(misfire)s, %(grace_s)s,
        %(overlap)s, %(keep_runs)s, %(declared)s)
on conflict (name) do nothing
"""
CHANGE: Final[LiteralString] = """
update schedule set description = %(description)s, kind = %(kind)s, action = %(action)s,
       subject_id = %(subject_id)s, params = %(params)s, cron = %(cron)s, every_s = %(every_s)s,
       zone = %(zone)s, starts_at = %(starts_at)s, ends_at = %(ends_at)s,
       jitter_s = %(jitter_s)s, misfire = %(misfire)s, grace_s = %(grace_s)s,
       overlap = %(overlap)s, keep_runs = %(keep_runs)s
 where name = %(name)s
"""
PAUSE: Final[LiteralString] = "update schedule set paused = %(paused)s where name = %(name)s"
REMOVE: Final[LiteralString] = "delete from schedule where name = %(name)s"
# Of several nodes that look at once, each gets what no other is at.
DUE: Final[LiteralString] = """
select s.*, clock_timestamp() as now from schedule s
 where action = any(%(known)s) and problem = ''
   and ((not paused and fires_at <= clock_timestamp())
        or exists (select from schedule_run w where w.schedule = s.name and w.state = 'waiting'
                    and not exists (
             select from schedule_run r where r.schedule = s.name
                and (r.state = 'running' or (r.state = 'queued' and not exists (
                  select from command c
                   where c.command_id = r.command_id and c.ended_at is not null))))))
 order by fires_at limit %(most)s
   for update of s skip locked
"""
LOOK: Final[LiteralString] = """
select (select extract(epoch from min(fires_at) - clock_timestamp())::float8 from schedule
         where not paused and problem = '' and action = any(%(known)s)) as wait_s,
       exists (select from schedule_run where state = 'waiting') as waiting
"""
ADVANCE: Final[LiteralString] = """
update schedule set due_at = %(due)s, fires_at = %(fires)s,
       last_due_at = coalesce(%(last)s::timestamptz, last_due_at),
       last_fired_at = case when %(fired)s::bigint > 0 then clock_timestamp()
                            else last_fired_at end,
       fired = fired + %(fired)s::bigint, skipped = skipped + %(skipped)s::bigint
 where name = %(name)s
"""
BROKEN: Final[LiteralString] = """
update schedule set problem = %(problem)s where name = %(name)s
"""
COUNT: Final[LiteralString] = """
update schedule set fired = fired + 1, last_fired_at = clock_timestamp() where name = %(name)s
"""


@dataclass(frozen=True, slots=True)
class Known:
    """What schedules may run: the engine's own works, and commands."""

    works: Collection[str]
    commands: Mapping[str, Command]

    @property
    def actions(self) -> list[str]:
        """All of them."""
        return [*self.works, *self.commands]

    def check(self, definition: Definition) -> None:
        """Raise `Invalid` when there is no such work or command."""
        for what, name, there in (
            ("work", definition.work, self.works),
            ("command", definition.command, self.commands),
        ):
            if name is not None and name not in there:
                raise Invalid(
                    f"there is no {what} {name[:_SHOWN]}; there are: {', '.join(sorted(there))}"
                )
        if definition.command is not None:
            self.describe(definition.command, definition.params)

    def describe(self, command: str, params: Mapping[str, Any]) -> str:
        """Return what a command would do; raises `Invalid` when its parameters don't fit."""
        try:
            return self.commands[command].describe(params)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise Invalid(f"{command} can't be called with these params: {error!r}") from error


async def declare(tx: Tx) -> None:
    """Write the engine's own schedules that are not there yet."""
    await tx.all(AUTHOR, {"by": "engine", "reason": ""})
    for name, definition in DECLARED.items():
        await tx.run(DECLARE, _params(name, definition, declared=True))


async def listed(tx: Tx) -> list[ScheduleRow]:
    """Return all schedules by name."""
    return [schedule_of(each) for each in await tx.all(LISTED)]


async def get(tx: Tx, name: str) -> ScheduleRow:
    """Return a schedule; raises `NotFound`."""
    return _there(await tx.first(GET, {"name": name}), name)


async def locked(tx: Tx, name: str) -> tuple[ScheduleRow, datetime]:
    """Return a schedule that nobody else changes or fires until the end; and the time by now."""
    record = await tx.first(LOCKED, {"name": name})
    schedule = _there(record, name)
    assert record is not None
    return schedule, record["now"]


async def due(tx: Tx, known: Known, most: int) -> list[tuple[ScheduleRow, datetime]]:
    """Return schedules with something to fire that no other transaction is at, and the time."""
    records = await tx.all(DUE, {"known": known.actions, "most": most})
    return [(schedule_of(each), each["now"]) for each in records]


async def assign(
    tx: Tx,
    name: str,
    values: Mapping[str, object],
    author: Author,
    known: Known,
    *,
    expected: int | None = None,
) -> ScheduleRow:
    """Define a schedule, or change what is given of it; raises `Invalid` or `Outdated`."""
    await tx.all(AUTHOR, {"by": author.name.strip(), "reason": author.reason.strip()})
    if not _NAME.fullmatch(name):
        raise Invalid("a schedule's name has 1 to 100 of a-z, 0-9, '.', '_' and '-'")
    record = await tx.first(LOCKED, {"name": name})
    before = None if record is None else schedule_of(record)
    _expect(name, before, expected)
    definition = changed({} if before is None else before.values, values)
    known.check(definition)
    if before is not None and before.declared and before.action != definition.work:
        raise Conflict(f"{name} is the engine's own: what it runs can't be changed")
    params = _params(name, definition, declared=False)
    if before is not None:
        await tx.run(CHANGE, params)
    elif await tx.run(DECLARE, params) != 1:
        raise Outdated(f"somebody else has just added {name}: look again")
    schedule, now = await locked(tx, name)
    schedule = await _planned(tx, schedule, now)
    if schedule.due_at is None and not schedule.paused:
        raise Invalid(f"{name} would never fire again: its times have no tick from now on")
    return schedule


async def pause(tx: Tx, name: str, author: Author, *, paused: bool) -> ScheduleRow:
    """Let a schedule fire no more, or again from now on; raises `NotFound`."""
    await tx.all(AUTHOR, {"by": author.name.strip(), "reason": author.reason.strip()})
    schedule, _ = await locked(tx, name)
    if schedule.paused != paused:
        await tx.run(PAUSE, {"name": name, "paused": paused})
    schedule, now = await locked(tx, name)
    return await _planned(tx, schedule, now)


async def remove(
    tx: Tx, name: str, author: Author, *, expected: int | None = None
) -> ScheduleRow | None:
    """Remove a schedule; one of the engine's own gets its default back, and is returned."""
    await tx.all(AUTHOR, {"by": author.name.strip(), "reason": author.reason.strip()})
    schedule, _ = await locked(tx, name)
    _expect(name, schedule, expected)
    if name not in DECLARED:
        await tx.run(REMOVE, {"name": name})
        return None
    await tx.run(PAUSE, {"name": name, "paused": False})
    await tx.run(CHANGE, _params(name, DECLARED[name], declared=True))
    schedule, now = await locked(tx, name)
    return await _planned(tx, schedule, now)


async def _planned(tx: Tx, schedule: ScheduleRow, now: datetime) -> ScheduleRow:
    """Find the next tick of a schedule whose times are new, from now on."""
    if schedule.due_at is not None or schedule.paused:
        return schedule
    await advance(tx, schedule, upcoming(schedule, now))
    return await get(tx, schedule.name)


def upcoming(schedule: ScheduleRow, now: datetime) -> Tick | None:
    """Return the first tick from now on, past all that fired, whatever befell the clock since."""
    return schedule.timetable.after(max(now, schedule.last_due_at or now))


async def advance(
    tx: Tx, schedule: ScheduleRow, to: Tick | None, written: list[Firing] | None = None
) -> None:
    """Move a schedule to its next tick, past what was written for the ones before."""
    written = written or []
    fired = sum(each.state != "skipped" for each in written)
    skipped = sum(each.ticks for each in written if each.state == "skipped")
    params: dict[str, Any] = {
        "name": schedule.name,
        "due": None if to is None else to.due,
        "fires": None if to is None else to.fires,
        "last": written[-1].due if written else None,
        "fired": fired,
        "skipped": skipped,
    }
    await tx.run(ADVANCE, params)


async def broken(tx: Tx, schedule: ScheduleRow, problem: str) -> None:
    """Set a schedule aside whose definition was written past the rules, until it is changed."""
    await tx.run(BROKEN, {"name": schedule.name, "problem": problem[:_LONGEST]})


async def counted(tx: Tx, schedule: ScheduleRow) -> None:
    """Count a run that was triggered."""
    await tx.run(COUNT, {"name": schedule.name})


def _params(name: str, definition: Definition, *, declared: bool) -> Record:
    return definition.model_dump() | {
        "name": name,
        "kind": "work" if definition.work is not None else "command",
        "action": definition.work or definition.command,
        "declared": declared,
    }


def _expect(name: str, found: ScheduleRow | None, expected: int | None) -> None:
    version = 0 if found is None else found.version
    if expected is not None and expected != version:
        by = "" if found is None else f", by {found.changed_by}"
        raise Outdated(f"{name} is at version {version}{by}, not {expected}: look again")


def _there(record: Record | None, name: str) -> ScheduleRow:
    if record is None:
        raise NotFound(f"there is no schedule {name[:_SHOWN]}")
    return schedule_of(record)
