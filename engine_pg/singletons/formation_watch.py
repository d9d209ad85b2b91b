"""Watches the formation that the database runs on, where there is one, and tells of its changes.

The monitor is asked each second over one connection, and the primary over the pool; no session is
kept on a standby, for one would hold up its shutdown. What is seen goes into the table `formation`,
changes of states at once, positions now and then; what it replaces there decides which events are
told, so that each change is told once, whoever leads.

Does not promise: to tell while nothing can be committed. That is `engine_pg.formation.commits`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any, Final

from engine_pg.clock import boottime
from engine_pg.cluster.fence import Fencing
from engine_pg.cluster.leaders import Leadership
from engine_pg.db.database import Database
from engine_pg.db.tx import Tx
from engine_pg.errors import EngineError
from engine_pg.formation import kept
from engine_pg.formation.commits import Hang
from engine_pg.formation.kept import FormationRow
from engine_pg.formation.line import MonitorLine
from engine_pg.formation.proof import UNDER_WAY
from engine_pg.formation.state import (
    NODES,
    SELF,
    FormationState,
    NodeState,
    waits_for_standby,
    watched,
)
from engine_pg.inventory.writes import NewEvent, append_event
from engine_pg.singletons.formation_events import (
    LAST_WORD,
    TOLD,
    changes,
    hung,
    was_unalarmed,
)

log = logging.getLogger(__name__)

NAME: Final = "formation-watch"
_PERIOD_S: Final = 1.0
_REFRESH_S: Final = 10.0
_MISSES: Final = 3
"""A monitor is away when it did not answer so often in a row: its restart takes a second."""


class FormationWatch:
    """The singleton `formation-watch`; without `monitor_url` it asks the primary alone.

    `past` returns the last hang of commits that this node saw end.
    """

    def __init__(
        self,
        db: Database,
        fencing: Fencing,
        monitor_url: str | None,
        past: Callable[[], Hang | None] = lambda: None,
        *,
        period_s: float = _PERIOD_S,
    ) -> None:
        self._db = db
        self._fencing = fencing
        self._monitor_url = monitor_url
        self._past = past
        self._period_s = period_s
        self._told_of: Hang | None = None

    async def run(self, leadership: Leadership) -> None:
        """Look until cancelled."""
        line = None if self._monitor_url is None else MonitorLine(self._monitor_url)
        async with self._db.read() as tx:
            last = await kept.read(tx)
        look = Look(last)
        try:
            while True:
                await leadership.until_trusted()
                state = look.seen(await look.ask(line), await self._primary())
                if look.due(state):
                    await self._keep(leadership, state)
                    look.kept(state)
                await self._tell_of_hang(leadership)
                await asyncio.sleep(self._period_s)
        finally:
            if line is not None:
                await line.close()

    async def _primary(self) -> dict[str, Any]:
        async with self._db.read() as tx:
            row = await tx.first(SELF)
        assert row is not None
        return row

    async def _keep(self, leadership: Leadership, state: FormationState) -> None:
        async with self._fencing.tx(leadership.fence) as tx:
            before = await kept.read(tx, in_turn=True)
            await kept.write(tx, state)
            events = [] if before is None else await _events(tx, before, state)
            for event in events:
                await append_event(tx, event)
        for event in events:
            log.log(
                logging.INFO if event.severity == "normal" else logging.WARNING,
                "%s",
                event.description,
            )

    async def _tell_of_hang(self, leadership: Leadership) -> None:
        hang = self._past()
        if hang is None or hang is self._told_of:
            return
        async with self._fencing.tx(leadership.fence) as tx:
            if await tx.first(TOLD, {"since": hang.since}) is None:  # nobody led before us did
                await append_event(tx, hung(hang))
        self._told_of = hang


async def _events(tx: Tx, before: FormationRow, state: FormationState) -> list[NewEvent]:
    """Return what is to be told; a switchover that goes on is known by its proofs."""
    planned = await tx.first(UNDER_WAY) is not None
    unalarmed = not (state.synchronous or before.synchronous) and was_unalarmed(
        await tx.first(LAST_WORD)
    )
    return list(changes(before, state, planned=planned, unalarmed=unalarmed))


class Look:
    """What one leadership has seen so far."""

    def __init__(self, last: FormationRow | None) -> None:
        self._nodes: tuple[NodeState, ...] = () if last is None else last.node_states()
        self._monitor = "none" if last is None else last.monitor
        self._wanted = None if last is None else last.wanted_standbys
        self._known = last is not None
        self._misses = 0
        self._kept: tuple[object, ...] | None = None
        self._kept_at = 0.0

    async def ask(self, line: MonitorLine | None) -> list[dict[str, Any]] | None:
        """Return what the monitor tells; None: it does not answer, or is not known."""
        if line is None:
            self._monitor = "none"
            return None
        try:
            told = await line.ask(NODES)
        except EngineError as error:
            self._misses += 1
            if self._misses >= _MISSES or self._monitor == "none":
                self._monitor = "away"
            if self._misses == _MISSES:
                log.warning("the monitor cannot be asked: %s", error)
            return None
        self._misses, self._monitor = 0, "up"
        return told

    def seen(self, told: list[dict[str, Any]] | None, own: dict[str, Any]) -> FormationState:
        """Return the formation as it is; what nobody tells now stays as it was told last."""
        if told is None:
            if self._monitor == "none":
                self._nodes = tuple(_followers(own))
            return FormationState(
                "",
                self._monitor,
                self._nodes,
                synchronous=waits_for_standby(own),
                standby_names=own["standby_names"],
                wanted_standbys=self._wanted,
            )
        state = watched(told, own)
        self._nodes, self._wanted = state.nodes, state.wanted_standbys
        return state

    def due(self, state: FormationState) -> bool:
        """Say whether that is to be kept; of a server that is alone there is nothing to keep."""
        if not (self._known or state.nodes or state.standby_names or state.monitor != "none"):
            return False
        changed = kept.signature(state) != self._kept
        return changed or boottime() > self._kept_at + _REFRESH_S

    def kept(self, state: FormationState) -> None:
        """Remember what was kept."""
        self._known, self._kept, self._kept_at = True, kept.signature(state), boottime()


def _followers(own: dict[str, Any]) -> Iterator[NodeState]:
    """Yield the standbys of a primary that no monitor watches, as far as it tells of them."""
    for name, seen in own["standbys"].items():
        yield NodeState(
            name=name,
            address=seen["address"] or "",
            state="streaming",
            goal="streaming",
            access="",
            healthy=True,
            sync=seen["sync"] or "",
            lag_bytes=None if seen["lag"] is None else int(seen["lag"]),
        )
