"""Where commands are submitted, cancelled and submitted anew, within a transaction of the caller's.

A cancellation is a durable request: whoever runs the command hears of it within a second, whoever
adopts it reads it. A command that nobody has begun ends at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final
from uuid import UUID

from engine_pg.commands import store
from engine_pg.commands.definition import Definition
from engine_pg.commands.rows import CommandView, Submission
from engine_pg.db.tx import Record, Tx
from engine_pg.errors import Conflict, Invalid
from engine_pg.ids import derived_id

_LONGEST_S: Final = 30 * 24 * 3600.0


class Desk:
    """The desk of the commands that the engine knows."""

    def __init__(self, registry: Mapping[str, Definition]) -> None:
        self._registry = registry

    async def submit(self, tx: Tx, submission: Submission) -> None:
        """Write a command and its job; repeating a submission changes nothing."""
        await store.submit(tx, self.written(submission))

    def written(self, submission: Submission) -> Record:
        """Return the row of a command that is submitted; raises `Invalid`."""
        definition = self._definition(submission.name)
        deadline_s = submission.deadline_s
        if deadline_s is None:
            deadline_s = definition.deadline_s
        if not 0 < deadline_s <= _LONGEST_S:
            raise Invalid(f"a deadline is above 0 and at most {_LONGEST_S:.0f} seconds")
        return store.written(
            replace(submission, deadline_s=deadline_s),
            description=definition.describe(submission.params),
            subject_kind=definition.subject_kind,
            queue=definition.queue,
            priority=definition.priority,
        )

    async def cancel(self, tx: Tx, command_id: UUID, *, by: str) -> CommandView:
        """Ask for the end of a command, and return it as it is then.

        Raises `Conflict` when it has ended otherwise, or begun what is not taken back.
        """
        command = await store.held(tx, command_id)
        if command.state == "cancelled" or (command.cancel_asked_at and not command.final):
            return command
        if command.final:
            raise Conflict(f"{command.description}: it has ended already ({command.state})")
        definition = self._definition(command.name)
        if step := definition.past_return(command.steps):
            raise Conflict(
                f"{command.description} can't be cancelled any more: {step.title} is not taken back"
            )
        await store.ask_cancel(tx, command, by=by)
        return await store.view(tx, command_id)

    async def retry(self, tx: Tx, command_id: UUID, *, by: str) -> CommandView:
        """Submit a command anew that ended without success, and return the new one.

        It is retried once: repeating that returns the same one, which may be retried in turn.
        """
        command = await store.held(tx, command_id)
        if not command.final:
            raise Conflict(f"{command.description}: it has not ended; cancel it first")
        if command.state == "succeeded":
            raise Conflict(f"{command.description}: it has succeeded")
        if command.parent_id is not None:
            raise Conflict(f"{command.description}: retry its parent, {command.parent_id}")
        again = replace(
            command.submission,
            command_id=derived_id(command_id, "retry"),
            user_name=by,
            retry_of=command_id,
        )
        await self.submit(tx, again)
        return await store.view(tx, again.command_id)

    def _definition(self, name: str) -> Definition:
        definition = self._registry.get(name)
        if definition is None:
            raise Invalid(f"there is no command {name}")
        return definition
