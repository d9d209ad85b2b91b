"""One host step: intent, call, outcome; and after anything unclear, a look before the next call.

A look that finds nothing does not prove that nothing will happen: the host may still have the call
in its queue. It counts when the call is out of time, or when the look itself carried a newer token
to a host that checks them and so shut the gate behind it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar
from uuid import UUID

from engine_pg.clock import boottime
from engine_pg.commands.definition import HostStep
from engine_pg.commands.halt import Halted
from engine_pg.commands.journal import Journal
from engine_pg.commands.rows import StepView
from engine_pg.commands.run import Run
from engine_pg.db.tx import Record
from engine_pg.errors import (
    EngineError,
    HostBusy,
    HostUnreachable,
    OutcomeUnknown,
    Rejected,
)
from engine_pg.inventory.reads import get
from engine_pg.inventory.rows import Host

T = TypeVar("T")
log = logging.getLogger(__name__)

_RETRY_S: Final = 0.25


class HostLost(EngineError):
    """A call was made, and the host could not be asked in time what came of it."""


class HostStepRun:
    """Runs one host step of one run."""

    def __init__(self, run: Run, journal: Journal, number: int, step: HostStep) -> None:
        self._run = run
        self._journal = journal
        self._number = number
        self._step = step
        self._deadline = boottime() + step.patience_s
        self.nothing_happened = False

    async def forward(self, record: StepView | None) -> Record:
        """Do the step, going on from its record if there is one; return its outcome.

        Raises `HostUnreachable` or `HostBusy` when surely nothing happened, `HostLost` when that
        can't be learned in time, and `Rejected` when the host refused.
        """
        step = self._step
        outcome: Record | None = None
        if record is None or record.intent is None:
            intent = await self._journal.start(
                self._number, step, lambda tx: step.plan(self._run, tx)
            )
        else:
            intent = record.intent
            outcome = await self._settled(intent, record.attempt)
            self._run.halt.held = False
            if outcome is None:
                self._halted_unbegun()
                await self._journal.start_again(self._number, step, intent)
        await self._run.at(step.name, "intended")
        while outcome is None:
            outcome = await self._act(intent)
        await self._run.at(step.name, "done")
        await self._journal.finish(self._number, step, intent, outcome)
        return outcome

    async def backward(self, record: StepView) -> None:
        """Reverse what the step did, or may have done."""
        step = self._step
        if step.undo is not None and record.intent is not None:
            intent, undo = record.intent, step.undo
            if record.outcome is None and step.changes_host:
                await self._settled(intent, record.attempt)
            await self._insist(lambda: undo(self._run, intent), unclear=True)
            await self._run.at(step.name, "undone")
        await self._journal.compensated(self._number, step)

    def _halted_unbegun(self) -> None:
        try:
            self._run.halt.check()
        except Halted:
            self.nothing_happened = True
            raise

    async def _act(self, intent: Record) -> Record | None:
        """Make the call; None: it surely did not happen and may be made again."""
        try:
            return await self._insist(lambda: self._step.act(self._run, intent))
        except (HostUnreachable, HostBusy, Rejected, Halted):
            self.nothing_happened = True  # never sent, or refused: there is nothing to reverse
            raise
        except OutcomeUnknown as error:
            log.info("%s: %s; asking the host", self._step.name, error)
            return await self._settled(intent, self._run.claim.attempt)

    async def _settled(self, intent: Record, attempt: int) -> Record | None:
        """Ask the host what came of a call that was made under `attempt`, until that is certain."""
        look = self._look(intent)
        outcome = await self._insist(look, unclear=True)
        breaking_off = self._step.breaks_off and self._run.halt.reason is not None
        if not self._step.changes_host or (outcome is not None and not breaking_off):
            return outcome
        if attempt < self._run.claim.attempt and await self._gate_shut(intent):
            return outcome
        await asyncio.sleep(self._run.patience.host_inflight_s)
        self._deadline = max(self._deadline, boottime() + self._step.patience_s)
        return await self._insist(look, unclear=True)

    def _look(self, intent: Record) -> Callable[[], Awaitable[Record | None]]:
        return lambda: self._step.look(self._run, intent)

    async def _gate_shut(self, intent: Record) -> bool:
        """Tell whether the host checks tokens: our look then made it refuse all older calls."""
        async with self._run.db.read() as tx:
            host = await get(tx, Host, UUID(intent["host_id"]))
        return (await self._run.driver(host)).traits.fencing == "all"

    async def _insist(self, call: Callable[[], Awaitable[T]], *, unclear: bool = False) -> T:
        """Repeat a call while the host is away, until the step's patience is over."""
        while True:
            self._run.membership.session.check()
            try:
                return await call()
            except (HostUnreachable, HostBusy) as error:
                problem: EngineError = error
            except OutcomeUnknown as error:
                if not unclear:
                    raise
                problem = error
            if boottime() > self._deadline:
                if unclear:
                    raise HostLost(f"{self._step.title}: {problem}") from problem
                raise problem
            if not unclear:
                self._run.halt.check()
            await asyncio.sleep(_RETRY_S)
