"""One step that is done by other commands: submitted with its intent, awaited by nobody.

Whoever finds that some of them have not ended parks the command: it is given up, under the grants
that stand, and the end of the last child has it run again (`command_child_ended`). A thousand
parents that wait cost no worker anything.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Final
from uuid import UUID

from engine_pg.cluster.fence import FencedTx
from engine_pg.commands import store
from engine_pg.commands.definition import ChildrenStep
from engine_pg.commands.journal import Journal
from engine_pg.commands.rows import CommandView, StepView, Submission
from engine_pg.commands.run import Run
from engine_pg.db.tx import Record
from engine_pg.errors import Conflict, EngineError
from engine_pg.ids import derived_id

log = logging.getLogger(__name__)

CHILDREN: Final = "children"
FAIL_FAST: Final = "fail_fast"
"""In the intent, for whom a child's end is told (`command_child_ended`)."""


class Parked(EngineError):
    """The command waits for its children; the end of the last one has it run again."""


class ChildrenStepRun:
    """Runs one such step of one run."""

    def __init__(self, run: Run, journal: Journal, number: int, step: ChildrenStep) -> None:
        self._run = run
        self._journal = journal
        self._number = number
        self._step = step

    async def forward(self, record: StepView | None) -> Record:
        """Have the children run; return what their ends mean once all have ended.

        Raises `Parked` until then.
        """
        if record is None or record.intent is None:
            self._run.halt.check()
            intent = await self._journal.start(self._number, self._step, self._submitted)
        else:
            intent = record.intent
        await self._run.at(self._step.name, "intended")
        children = await self._ended(intent, needed=self._run.halt.reason is None)
        self._run.halt.check()
        return await self._journal.judge(self._number, self._step, children)

    async def backward(self, record: StepView) -> None:
        """Reverse the step, once all its children have ended."""
        if record.intent is not None:
            await self._ended(record.intent, needed=False)
        if self._step.undo is None:
            await self._journal.compensated(self._number, self._step)
        else:
            await self._journal.undo(self._number, self._step, record.outcome or {})

    async def _submitted(self, tx: FencedTx) -> Record:
        run, step = self._run, self._step
        children: dict[str, str] = {}
        for child in await step.plan(run, tx):
            id_ = derived_id(run.command.command_id, step.name, child.key)
            submission = Submission(
                name=child.name,
                subject_id=child.subject_id,
                params=child.params,
                user_name=run.command.user_name,
                correlation_id=run.command.correlation_id,
                command_id=id_,
                parent_id=run.command.command_id,
            )
            await run.desk.submit(tx, submission)
            children[child.key] = str(id_)
        return {CHILDREN: children, FAIL_FAST: step.fail_fast}

    async def _ended(self, intent: Record, *, needed: bool) -> Sequence[CommandView]:
        ids = [UUID(each) for each in intent[CHILDREN].values()]
        if not needed:
            await self._cancel(ids)
        children = await self._read(ids)
        if needed and self._step.fail_fast and any(map(_failed, children)):
            await self._cancel([child.command_id for child in children if not child.final])
            children = await self._read(ids)
        still = sum(not child.final for child in children)
        if still:
            raise Parked(f"{still} of {len(children)} children have not ended")
        return children

    async def _read(self, ids: Sequence[UUID]) -> Sequence[CommandView]:
        async with self._run.db.read() as tx:
            return await store.without_steps(tx, ids)

    async def _cancel(self, ids: Sequence[UUID]) -> None:
        """Ask for the end of each, in transactions of their own: a child's end locks its parent."""
        for id_ in ids:
            with suppress(Conflict):  # it has ended, or goes through what it has begun
                async with self._run.db.write() as tx:
                    await self._run.desk.cancel(tx, id_, by=self._run.command.user_name)


def _failed(child: CommandView) -> bool:
    return child.final and child.state != "succeeded"
