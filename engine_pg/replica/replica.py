"""The replica of one node: copies, follows the feed, and lets readers past its barriers.

One loop alone moves the cursor, statement by statement. Readers who wait are served by the next
statement that is sent, and not by the one under way: that one may have looked before they came.
A batch is applied slice by slice to a draft, which becomes the view when it is whole.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from engine_pg.clock import Clock, boottime
from engine_pg.cluster.feed import Change, Changes, Cursor, Feed
from engine_pg.cluster.topics import CHANGES
from engine_pg.db.listener import Doorbells
from engine_pg.errors import DatabaseAway, EngineError, Resync
from engine_pg.replica.copying import copied
from engine_pg.replica.figures import Figures, Standing
from engine_pg.replica.garbage import spare_rows
from engine_pg.replica.table import Table
from engine_pg.replica.view import View, ViewDraft

log = logging.getLogger(__name__)

_SLICE: Final = 50
"""So many changes are applied before others get their turn: a few milliseconds."""
_AGAIN_S: Final = 0.1
_AGAIN_MOST_S: Final = 1.0
_SILENT_S: Final = 2.0
"""A read of the feed that takes longer: whoever asks meanwhile had better not wait for it."""


class Replica:
    """The tables of one node's replica; `run` keeps them, whatever befalls the database."""

    def __init__(
        self,
        feed: Feed,
        bells: Doorbells,
        tables: Sequence[Table[Any]],
        *,
        poll_s: float = 1.0,
        clock: Clock = boottime,
    ) -> None:
        self.figures: Final = Figures()
        self._feed = feed
        self._tables = tables
        self._by_topic = {table.topic: table for table in tables}
        self._poll_s = poll_s
        self._clock = clock
        self._bell = bells.bell(CHANGES)
        self._view: View | None = None
        self._seen = asyncio.Event()  # that there is a view
        self._cursor: Cursor | None = None
        self._waiting: list[asyncio.Future[None]] = []
        self._proven_at = float("-inf")
        self._noon: tuple[datetime, float] | None = None
        self._away = False
        self._asked_at: float | None = None

    @property
    def view(self) -> View | None:
        """What was read last, however long ago; None until the first copy."""
        return self._view

    @property
    def away(self) -> bool:
        """Whether the last attempt to reach the database failed, or is not answered."""
        silent = self._asked_at is not None and self._clock() - self._asked_at > _SILENT_S
        return self._away or silent

    @property
    def age_s(self) -> float:
        """How long ago the view was certainly all there was."""
        return self._clock() - self._proven_at

    @property
    def standing(self) -> Standing:
        """How the replica stands."""
        if self._view is None:
            return Standing(None, self.away, {})
        rows = {rows.table.topic: len(rows) for rows in self._view.rows.values()}
        return Standing(self.age_s, self.away, rows)

    async def copied(self) -> None:
        """Return once there is a view, however old; wait for it under a bound."""
        await self._seen.wait()

    async def passed(self) -> View:
        """Return a view that has all that was committed before the call; raises `EngineError`."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._bell.ring()
        await waiter
        assert self._view is not None
        return self._view

    async def run(self) -> None:
        """Copy and follow until cancelled."""
        again_s = _AGAIN_S
        while True:
            try:
                await self._turn()
            except Resync as reason:
                log.info("copying anew: %s", reason)
                self.figures.resyncs += 1
                self._cursor = None
            except EngineError as error:
                self._lost(error)
            except Exception as error:  # a row that no node can read must not take down all
                log.exception("the replica cannot be kept")
                self._lost(DatabaseAway(f"the replica cannot be kept: {error!r}"))
                self._cursor = None
            else:
                self._away = False
                again_s = _AGAIN_S
                continue
            if self._away:
                await asyncio.sleep(again_s)
                again_s = min(again_s * 2, _AGAIN_MOST_S)

    async def _turn(self) -> None:
        """Copy, or wait for something to read and read it."""
        if self._cursor is None:
            await self._copy()
        elif not self._away:  # else whoever reads again is served at once
            await self._bell.wait(self._poll_s)
        served, self._waiting = self._waiting, []
        self._asked_at = self._clock()
        try:
            await self._read(sync=bool(served) or self.age_s > self._poll_s)
        except BaseException as error:
            reason = error if isinstance(error, EngineError) else DatabaseAway("the node stops")
            if isinstance(error, Resync):  # after the copy they are served
                self._waiting = served + self._waiting
            else:
                _fail(served, reason)
            raise
        finally:
            self._asked_at = None
        self.figures.barriers += bool(served)
        for waiter in served:
            if not waiter.done():
                waiter.set_result(None)

    async def _copy(self) -> None:
        async with self._feed.copy() as (tx, cursor):
            view = await copied(tx, self._tables, cursor.epoch_id)
        self._noon = (view.at, self._clock())
        self._view, self._cursor = view, cursor
        self._seen.set()
        spare_rows()
        self.figures.copies += 1
        self._away = False

    async def _read(self, *, sync: bool) -> None:
        """Read on until the view has all that the first statement saw."""
        assert self._cursor is not None
        assert self._view is not None
        sent_at = self._clock()
        found = await self._feed.read(self._cursor, sync=sync)
        target = found.seen
        draft = ViewDraft(self._tables, self._view)
        while True:
            await self._apply(draft, found.changes)
            if not found.cursor.until:  # whole: no transaction has come in part
                self._publish(draft, found)
                draft = ViewDraft(self._tables, self._view)
            if found.cursor.covers(target):
                break
            found = await self._feed.read(found.cursor)
        if sync:
            self._proven_at = max(self._proven_at, sent_at)

    async def _apply(self, draft: ViewDraft, changes: Sequence[Change]) -> None:
        began_at = self._clock()
        for number, change in enumerate(changes, 1):
            table = self._by_topic.get(change.topic)
            if table is not None:
                target = draft.of(table)
                if change.row is None:
                    target.drop(change.key)
                else:
                    target.put(change.key, table.row(change.row))
            if number % _SLICE == 0:
                self._held(began_at)
                await asyncio.sleep(0)
                began_at = self._clock()
        self._held(began_at)
        self.figures.changes += len(changes)

    def _publish(self, draft: ViewDraft, found: Changes) -> None:
        began_at = self._clock()
        now = self.moment()
        self._view, self._cursor = draft.freeze(now, found.cursor.epoch_id), found.cursor
        self._held(began_at)
        if found.changes:
            self.figures.batches += 1
            self.figures.lag_s = max(0.0, (now - found.changes[-1].at).total_seconds())

    def moment(self) -> datetime:
        """Return what time it is at the database, as far as this node can tell without asking."""
        assert self._noon is not None
        at, clock = self._noon
        return at + timedelta(seconds=self._clock() - clock)

    def _held(self, began_at: float) -> None:
        figures = self.figures
        figures.longest_hold_s = max(figures.longest_hold_s, self._clock() - began_at)

    def _lost(self, error: EngineError) -> None:
        if not self._away:
            log.warning("the replica is cut off: %s", error)
            self.figures.losses += 1
        self._away = True
        served, self._waiting = self._waiting, []
        _fail(served, error)


def _fail(waiters: Sequence[asyncio.Future[None]], error: EngineError) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_exception(error)
