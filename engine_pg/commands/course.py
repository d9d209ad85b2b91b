"""The course of a command: forward through its steps, or backward through their compensations."""

from __future__ import annotations

import logging
from typing import Final

from engine_pg.commands.definition import Definition, HostStep, Step, WriteStep
from engine_pg.commands.hoststep import HostLost, HostStepRun
from engine_pg.commands.journal import Journal
from engine_pg.commands.rows import StepView
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

MAX_ATTEMPTS: Final = 12


class GivenUp(EngineError):
    """So many nodes ended while they ran this command that no further one tries it."""


class Defect(EngineError):
    """Something in the engine is wrong; the log tells what."""


class Course:
    """One attempt of one command."""

    def __init__(self, run: Run, definition: Definition, journal: Journal) -> None:
        self._run = run
        self._definition = definition
        self._journal = journal
        self._records = {step.number: step for step in run.command.steps}
        self._failed: tuple[int, Step] | None = None
        self._void = False

    async def forward(self) -> EngineError | None:
        """Go on at the first step without an outcome; return why the command must be reversed.

        Raises what only interrupts: `NotHeld`, an absent database, an outcome to be looked up.
        """
        try:
            await self._forward()
        except HostLost as lost:
            await self._journal.fail(self._failed, lost)
            await self._journal.end("unknown", lost)
        except (HostUnreachable, HostBusy) as error:
            return await self._rejected(error)
        except (NotHeld, Unavailable, OutcomeUnknown):
            raise
        except EngineError as error:
            return await self._rejected(error)
        except Exception as error:
            log.exception("%s failed", self._definition.name)
            return await self._rejected(Defect(f"internal error: {type(error).__name__}"))
        return None

    async def backward(self, error: EngineError) -> None:
        """Reverse the steps, the last one first, and end the command."""
        try:
            if self._run.claim.attempt > 2 * MAX_ATTEMPTS:
                raise GivenUp(f"given up after {self._run.claim.attempt} attempts")
            for number in sorted(self._records, reverse=True):
                await self._reverse(number, self._records[number])
        except HostLost as lost:
            await self._journal.end("unknown", lost)
        except (NotHeld, Unavailable, OutcomeUnknown):
            raise
        except Exception as failure:  # to try again and again would hold its locks for ever
            log.exception("the compensation of %s failed", self._definition.name)
            await self._journal.end("unknown", Defect(f"{error}; undoing it failed: {failure}"))
        else:
            await self._journal.end("failed", error)

    async def _forward(self) -> None:
        run, definition = self._run, self._definition
        if run.claim.attempt > MAX_ATTEMPTS:
            raise GivenUp(f"given up after {MAX_ATTEMPTS} attempts")
        await run.lock(*definition.locks(run.command), wait_s=definition.lock_wait_s)
        for number, step in enumerate(definition.steps, start=1):
            record = self._records.get(number)
            if record is not None and record.state == "finished":
                run.outcomes[step.name] = record.outcome or {}
                continue
            self._failed = (number, step)
            run.outcomes[step.name] = await self._do(number, step, record)
            self._failed = None
        if not self._journal.ended:
            await self._journal.end("succeeded", None)

    async def _do(self, number: int, step: Step, record: StepView | None) -> dict[str, object]:
        run = self._run
        await run.membership.session.until_trusted()
        if isinstance(step, HostStep):
            host_step = HostStepRun(run, self._journal, number, step)
            try:
                return await host_step.forward(record)
            finally:
                self._void = host_step.nothing_happened
        if step.prepare is not None:
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
        if record.state == "compensated" or step.undo is None:
            return
        if isinstance(step, WriteStep):
            if record.state == "finished":
                await self._journal.undo(number, step, record.outcome or {})
        else:
            await HostStepRun(self._run, self._journal, number, step).backward(record)
