"""What the API calls: submit a command, durably, and wait until it is accepted or final.

A submission whose commit got no answer is repeated under the same id: if it had happened, nothing
happens; if not, it happens now. Either way it is certain when `submit` returns.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from typing import Final, Literal
from uuid import UUID

from engine_pg import errors
from engine_pg.clock import boottime
from engine_pg.commands import store
from engine_pg.commands.definition import Definition
from engine_pg.commands.desk import Desk
from engine_pg.commands.rows import CommandView, Submission
from engine_pg.commands.runner import COMMANDS
from engine_pg.db.database import Database
from engine_pg.db.gathered import Gathered
from engine_pg.db.listener import QUEUE, Doorbells
from engine_pg.db.tx import Record
from engine_pg.errors import EngineError, OutcomeUnknown, Rejected, Unavailable

log = logging.getLogger(__name__)

Until = Literal["accepted", "final"]
_POLL_S: Final = 1.0
_INSIST_S: Final = 6.0


class Commands:
    """The commands of the cluster, seen from one node."""

    def __init__(self, db: Database, bells: Doorbells, registry: Mapping[str, Definition]) -> None:
        self._db = db
        self._bells = bells
        self.desk: Final = Desk(registry)
        self._bell = bells.bell(COMMANDS)
        self._waiting: dict[UUID, list[tuple[Until, asyncio.Future[None]]]] = {}
        self._asked = asyncio.Event()
        self._submitting = Gathered[Record, None](partial(store.submit_many, db))

    async def submit(self, submission: Submission) -> None:
        """Write the command and its job; they are durable when this returns.

        Raises `Unavailable` when surely nothing happened and `OutcomeUnknown` when even the
        repeated attempt got no answer: the command may then run, and its id tells.
        """
        row = self.desk.written(submission)
        deadline = boottime() + _INSIST_S
        unknown: OutcomeUnknown | None = None
        while True:
            try:
                await self._submitting.ask(row)
            except OutcomeUnknown as error:
                unknown = error
            except Unavailable:
                if unknown is None:
                    raise
            else:
                self._bells.ring_soon(QUEUE)
                return
            if boottime() > deadline:
                raise unknown
            await asyncio.sleep(0.1)

    async def settled(self, command_id: UUID, *, until: Until, bound_s: float) -> CommandView:
        """Return the command once it is accepted (or final), or as it is when `bound_s` is over."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(command_id, [])
        waiting.append((until, future))
        self._asked.set()
        try:
            async with asyncio.timeout(bound_s):
                await future
        except TimeoutError:
            log.info("command %s is not %s after %g s", command_id, until, bound_s)
        finally:
            waiting.remove((until, future))
            if not waiting:
                self._waiting.pop(command_id, None)
        async with self._db.read() as tx:
            return await store.view(tx, command_id)

    async def perform(
        self, submission: Submission, *, until: Until = "final", bound_s: float = 20.0
    ) -> CommandView:
        """Submit and wait; a command that was refused raises its own error."""
        await self.submit(submission)
        view = await self.settled(submission.command_id, until=until, bound_s=bound_s)
        if view.final and view.state != "succeeded" and (until == "final" or not view.accepted):
            raise refusal(view)
        return view

    async def run(self) -> None:
        """Answer the waiting on each ring or slow poll, with one query for all; until cancelled."""
        while True:
            if not self._waiting:
                self._asked.clear()
                await self._asked.wait()
            await self._look()
            await self._bell.wait(_POLL_S)

    async def _look(self) -> None:
        try:
            async with self._db.read() as tx:
                states = await store.states(tx, list(self._waiting))
        except EngineError as error:
            log.info("cannot look at commands: %s", error)
            return
        for state in states:
            for until, future in self._waiting.get(state["command_id"], []):
                if (state["final"] or (until == "accepted" and state["accepted"])) and not (
                    future.done()
                ):
                    future.set_result(None)


def refusal(view: CommandView) -> EngineError:
    """Return the error of a failed command as its caller is to get it."""
    text = view.error or "the command failed"
    if view.state == "unknown":
        return OutcomeUnknown(text)
    kind = getattr(errors, view.error_kind or "", None)
    if view.error_kind == "LockBusy":
        kind = errors.Locked
    if isinstance(kind, type) and issubclass(kind, Rejected):
        return kind(text)
    return errors.Conflict(text)
