"""The course of a command: forward through its steps, or backward through their compensations."""

from __future__ import annotations

import logging
from typing import Final

from engine_pg.commands.children import ChildrenStepRun, Parked
from engine_pg.commands.definition import (
    ChildrenStep,
    Definition,
    HostStep,
    Step,
    lasting,
)
from engine_pg.commands.halt import Cancelled, Expired, GivenUp
from engine_pg.commands.hoststep import HostLost, HostStepRun
from engine_pg.commands.journal import Journal
from engine_pg.commands.rows import State, StepView
from engine_pg.commands.run import Run
from engine_pg.errors import (
    EngineError,
    HostBusy,
    HostUnreachable,
    NotHeld,
    OutcomeUnknown,
    Unavailable,
)

log = logging.getLogger(__name__)

_ENDS: Final[dict[type[EngineError], State]] = {Cancelled: "cancelled", GivenUp: "dead"}
_SPARE: Final = 2
"""How many more runners may end while what a dead command did is reversed."""


class Defect(EngineError):
    """Something in the engine is wrong; the log tells what."""


def recorded_error(kind: str | None, text: str) -> EngineError:
    """Return the error of a command that is reversed, as far as it matters how it ends."""
    halts = {each.__name__: each for each in (Cancelled, Expired, GivenUp)}
    return halts.get(kind or "", EngineError)(text)


class Course:
    """One attempt of one command; `limit` is how many runners may end while they run it."""

    def __init__(self, run: Run, definition: Definition, journal: Journal, *, limit: int) -> None:
        self._run = run
        self._definition = definition
        self._journal = journal
        self._limit = limit
        self._records = {step.number: step for step in run.command.steps}
        self._failed: tuple[int, Step] | None = None
        self._void = False
        if definition.past_return(run.command.steps) is not None:
            run.halt.disarm()
        if definition.under_way(run.command.steps):
            run.halt.held = True

    async def forward(self) -> EngineError | None:
        """Go on at the first step without an outcome; return why the command must be reversed.

        Raises what only interrupts: `NotHeld`, an absent database, an outcome to be looked up, and
        `Parked` while its children run.
        """
        try:
            await self._forward()
        except HostLost as lost:
            await self._journal.fail(self._failed, lost)
            await self._journal.end("unknown", lost, unclear=True)
        except (HostUnreachable, HostBusy) as error:
            return await self._rejected(error)
        except (NotHeld, Unavailable, OutcomeUnknown, Parked):
            raise
        except EngineError as error:
            return await self._rejected(error)
        except Exception as error:
            log.exception("%s failed", self._definition.name)
            return await self._rejected(Defect(f"internal error: {type(error).__name__}"))
        return None

    async def backward(self, error: EngineError) -> None:
        """Reverse the steps, the last one first, and end the command."""
        end = _ENDS.get(type(error), "failed")
        self._run.halt.disarm()
        try:
            if self._run.command.deaths >= self._limit + _SPARE:
                raise self._given_up()
            for number in sorted(self._records, reverse=True):
                await self._reverse(number, self._records[number])
        except HostLost as lost:
            await self._journal.end("unknown", lost, unclear=True)
        except GivenUp as gone:
            await self._journal.end("dead", gone, unclear=True)
        except (NotHeld, Unavailable, OutcomeUnknown, Parked):
            raise
        except Exception as failure:  # to try again and again would hold its locks for ever
            log.exception("the compensation of %s failed", self._definition.name)
            unclear = Defect(f"{error}; undoing it failed: {failure}")
            await self._journal.end("unknown", unclear, unclear=True)
        else:
            await self._journal.end(end, error)

    def _given_up(self) -> GivenUp:
        return GivenUp(f"given up: {self._run.command.deaths} nodes ended while they ran it")

    async def _forward(self) -> None:
        run, definition = self._run, self._definition
        if run.command.deaths >= self._limit:
            raise self._given_up()
        run.halt.check()
        await run.lock_first(*definition.locks(run.command), wait_s=definition.lock_wait_s)
        for number, step in enumerate(definition.steps, start=1):
            record = self._records.get(number)
            if record is not None and record.state == "finished":
                run.outcomes[step.name] = record.outcome or {}
                continue
            self._failed = (number, step)
            run.outcomes[step.name] = await self._do(number, step, record)
            await run.at(step.name, "finished")
            self._failed = None
            if lasting(step):
                run.halt.disarm()
        if not self._journal.ended:
            await self._journal.end("succeeded", None)

    async def _do(self, number: int, step: Step, record: StepView | None) -> dict[str, object]:
        run = self._run
        run.number = number
        await run.at(step.name, "begun")
        await run.membership.session.until_trusted()
        if isinstance(step, ChildrenStep):  # those that run are to be told of a halt
            return await ChildrenStepRun(run, self._journal, number, step).forward(record)
        run.halt.check()
        if isinstance(step, HostStep):
            host_step = HostStepRun(run, self._journal, number, step)
            try:
                return await host_step.forward(record)
            finally:
                self._void = host_step.nothing_happened
        if step.prepare is not None:
            async with run.halt.cutting():
                await step.prepare(run)
        last = number == len(self._definition.steps)
        journal = self._journal
        return await (journal.conclude if last else journal.write)(number, step)

    async def _rejected(self, error: EngineError) -> EngineError:
        log.info("%s: %s", self._definition.name, error)
        await self._journal.fail(self._failed, error, void=self._void)
        # What the failed step and those before it left behind is read back, not remembered.
        self._records = await self._run.steps()
        return error

    async def _reverse(self, number: int, record: StepView) -> None:
        step = self._definition.steps[number - 1]
        if record.state == "compensated":
            return
        if step.undo is None and not isinstance(step, ChildrenStep):
            return
        self._run.number = number
        await self._run.at(step.name, "undoing")
        if isinstance(step, HostStep):
            await HostStepRun(self._run, self._journal, number, step).backward(record)
        elif isinstance(step, ChildrenStep):
            await ChildrenStepRun(self._run, self._journal, number, step).backward(record)
        elif record.state == "finished":
            await self._journal.undo(number, step, record.outcome or {})
        await self._run.at(step.name, "compensated")
