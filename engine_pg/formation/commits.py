"""Notices that commits hang: sessions of ours wait for a standby and nobody lets them go on.

In a formation of two that is what a cut link between the servers does: each is well for the
monitor, so that it changes nothing. It cannot be told by a commit. Each node looks for itself, over
a connection of its own that reads, and only while it has a reason to: its own renewal, a commit
too, is overdue. Sessions of the engine's own role may be looked at without any further right.

Does not promise: to see a hang that ends within its bound, or one that no commit of ours meets.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, LiteralString

from engine_pg.db.database import connect
from engine_pg.db.wire import bounded
from engine_pg.errors import EngineError
from engine_pg.formation.asking import Row, closed
from engine_pg.formation.line import asked
from engine_pg.formation.state import GOOD, NODES, WRITABLE

log = logging.getLogger(__name__)

HANG_S: Final = 5.0
"""A standby that dies holds commits up for 2 s (profile fast); the lease is as long as this."""
_PERIOD_S: Final = 1.0
_BOUND_S: Final = 2.0

WAITING: Final[LiteralString] = """
select pid, query_start as began_at,
       extract(epoch from clock_timestamp() - query_start)::float8 as waited_s
  from pg_stat_activity where wait_event = 'SyncRep' and state = 'active'
"""
MEND: Final = (
    "mend the link; or let {primary} go on alone by `pg_autoctl enable maintenance` on {standby},"
    " and `pg_autoctl disable maintenance` there when the link is whole"
)
UNWATCHED: Final = (
    "the primary waits for a standby that does not acknowledge: look at the standby, at the link"
    " to it, and at synchronous_standby_names"
)

Session = tuple[int, datetime]


@dataclass(frozen=True, slots=True)
class Hang:
    """Commits that hang, or did: since when, by the database's clock, how many, and what to do."""

    since: datetime
    waited_s: float
    sessions: int
    why: str

    @property
    def sentence(self) -> str:
        """Return what is said of it."""
        return f"commits hang, {self.sessions} for up to {self.waited_s:.0f} s: {self.why}"

    def document(self) -> dict[str, Any]:
        """Return it as a document with keys that stay."""
        return {
            "since": self.since.isoformat(timespec="milliseconds"),
            "waited_s": round(self.waited_s, 1),
            "sessions": self.sessions,
            "why": self.why,
        }


class CommitWatch:
    """What one node knows of hanging commits; `doubtful` says whether there is a reason to look."""

    def __init__(
        self,
        url: str,
        monitor_url: str | None,
        doubtful: Callable[[], bool],
        *,
        hang_s: float = HANG_S,
        period_s: float = _PERIOD_S,
    ) -> None:
        self.hang: Hang | None = None
        self.past: Hang | None = None
        """The last one that is over."""
        self._url = url
        self._monitor_url = monitor_url
        self._doubtful = doubtful
        self._hang_s = hang_s
        self._period_s = period_s
        self._seen: frozenset[Session] = frozenset()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            if self.hang is not None or self._doubtful():
                await self._look()
            else:
                self._seen = frozenset()
            await asyncio.sleep(self._period_s)

    async def _look(self) -> None:
        try:
            waiting = await self._waiting()
        except EngineError as error:
            log.debug("nobody says whether commits hang: %s", error)
            return  # what was known stays: a server that is full answers no new question
        found = hang_among(waiting, self._seen, self._hang_s)
        self._seen = pairs(waiting)
        if found is not None:
            self._tell(await explained(found, self._monitor_url))
        elif self.hang is not None and not waiting:
            log.warning("commits go on after %.0f s", self.hang.waited_s)
            self.past, self.hang = self.hang, None

    def _tell(self, found: Hang) -> None:
        if self.hang is None:
            log.error("%s", found.sentence)
        self.hang = replace(found, since=min(found.since, (self.hang or found).since))

    async def _waiting(self) -> list[Row]:
        connection = await connect(self._url, name="engine_pg commit watch")
        try:
            cursor = await bounded(connection, connection.execute(WAITING), _BOUND_S)
            return await cursor.fetchall()
        finally:
            await closed(connection)


def pairs(waiting: Sequence[Row]) -> frozenset[Session]:
    """Return by what a session that waits is known again in the next look."""
    return frozenset((row["pid"], row["began_at"]) for row in waiting)


def hang_among(waiting: Sequence[Row], seen: frozenset[Session], hang_s: float) -> Hang | None:
    """Return what hangs among sessions that wait; each counts that waited in the look before too.

    A long statement that only now waits for its commit is thus not taken for one that hangs.
    """
    again = [row for row in waiting if (row["pid"], row["began_at"]) in seen]
    longest = max(again, key=lambda row: row["waited_s"], default=None)
    if longest is None or longest["waited_s"] < hang_s:
        return None
    return Hang(longest["began_at"], longest["waited_s"], len(again), "")


async def explained(hang: Hang, monitor_url: str | None) -> Hang:
    """Return a hang with the reason that its monitor lets us see, if one is known."""
    told = UNWATCHED if monitor_url is None else reason(await asked(monitor_url, NODES))
    return replace(hang, why=told)


def reason(told: Sequence[Row] | None) -> str:
    """Return why commits hang by what a monitor tells, and what to do."""
    if not told:
        return (
            "the monitor does not answer, and it alone can let the primary go on without its"
            " standby: start it"
        )
    ill = [row for row in told if row["health"] != 1 or row["state"] != row["goal"]]
    if ill or any(row["state"] not in GOOD for row in told):
        names = ", ".join(f"{row['name']} is {row['state']}" for row in ill or told)
        return f"the monitor is at it ({names}): wait, and look at the keepers' logs past a minute"
    primary = next((row["name"] for row in told if row["state"] in WRITABLE), "the primary")
    standby = next((row["name"] for row in told if row["state"] == "secondary"), "the standby")
    return (
        f"the monitor finds all nodes well, so the link from {primary} to {standby} is cut, or"
        f" stalls: {MEND.format(primary=primary, standby=standby)}"
    )
