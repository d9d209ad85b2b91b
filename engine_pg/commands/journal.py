"""What a run writes down: intents, outcomes, failures, the end; each in a fenced transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, LiteralString

from psycopg.types.json import Jsonb

from engine_pg.cluster.fence import FencedTx
from engine_pg.commands.definition import ChildrenStep, Definition, HostStep, Step, WriteStep
from engine_pg.commands.rows import CommandView, State
from engine_pg.commands.run import Run
from engine_pg.db.tx import Record
from engine_pg.errors import EngineError
from engine_pg.inventory.numbering import EVENTS
from engine_pg.inventory.writes import NewEvent, append_event, told

# Again after a look that found nothing: the intent stands, under the token that now acts on it.
START_STEP: Final[LiteralString] = """
insert into command_step (command_id, number, name, title, kind, state, attempt, token, intent)
values (%(command_id)s, %(number)s, %(name)s, %(title)s, %(kind)s, 'started', %(attempt)s,
        %(token)s, %(intent)s)
on conflict (command_id, number) do update set attempt = excluded.attempt, token = excluded.token
"""
FINISH_STEP: Final[LiteralString] = """
insert into command_step (command_id, number, name, title, kind, state, attempt, token, outcome,
                          ended_at)
values (%(command_id)s, %(number)s, %(name)s, %(title)s, %(kind)s, 'finished', %(attempt)s,
        %(token)s, %(outcome)s, clock_timestamp())
on conflict (command_id, number) do update
   set state = 'finished', outcome = excluded.outcome, ended_at = excluded.ended_at,
       attempt = excluded.attempt, token = excluded.token
"""
FAIL_STEP: Final[LiteralString] = """
insert into command_step (command_id, number, name, title, kind, state, attempt, error, ended_at)
values (%(command_id)s, %(number)s, %(name)s, %(title)s, %(kind)s, 'failed', %(attempt)s,
        %(error)s, clock_timestamp())
on conflict (command_id, number) do update
   set state = 'failed', error = excluded.error, ended_at = excluded.ended_at,
       attempt = excluded.attempt,
       intent = case when %(void)s then null else command_step.intent end
"""
COMPENSATED: Final[LiteralString] = """
update command_step set state = 'compensated', ended_at = clock_timestamp()
 where command_id = %(command_id)s and number = %(number)s
"""
ACCEPT: Final[LiteralString] = """
update command set accepted_at = coalesce(accepted_at, clock_timestamp())
 where command_id = %(command_id)s
"""
ERROR: Final[LiteralString] = """
update command set error_kind = %(kind)s, error = %(error)s where command_id = %(command_id)s
"""
END: Final[LiteralString] = """
update command set state = %(state)s, ended_at = clock_timestamp(),
       error_kind = coalesce(error_kind, %(kind)s),
       error = case when %(unclear)s then coalesce(%(error)s, error)
                    else coalesce(error, %(error)s) end
 where command_id = %(command_id)s and ended_at is null
"""
FARTHER: Final[LiteralString] = """
update command set deaths = 0, not_before = null where command_id = %(command_id)s
"""
GIVEN_UP: Final = 9721
# The last step and the end of the command at once, with the event that tells it.
CONCLUDE: Final[LiteralString] = """
select command_conclude(%(command_id)s, %(number)s, %(name)s, %(title)s, %(kind)s, %(attempt)s,
                        %(token)s, %(outcome)s, %(accepts)s, %(event)s)
"""
CONCLUDE_ALONE: Final[LiteralString] = """
select fence_enter(%(member)s, %(gate)s, %(grants)s, %(leader)s::text, %(term)s::bigint,
                   %(leader_gate)s::integer, %(command)s::uuid, %(attempt)s::integer),
       command_conclude(%(command_id)s, %(number)s, %(name)s, %(title)s, %(kind)s, %(attempt)s,
                        %(token)s, %(outcome)s, %(accepts)s, %(event)s)
"""


class Journal:
    """The records of one run."""

    def __init__(self, run: Run, definition: Definition, ring: Callable[[], None]) -> None:
        self._run = run
        self._definition = definition
        self._ring = ring
        self.ended = False

    async def start(
        self, number: int, step: Step, plan: Callable[[FencedTx], Awaitable[Record]]
    ) -> Record:
        """Commit the intent of a step; what it intends follows at once."""
        async with self._run.write() as tx:
            intent = await plan(tx)
            await tx.run(START_STEP, self._row(number, step) | {"intent": Jsonb(intent)})
        return intent

    async def start_again(self, number: int, step: HostStep, intent: Record) -> None:
        """Commit that the recorded intent is acted on under the tokens held now."""
        async with self._run.write() as tx:
            await tx.run(START_STEP, self._row(number, step) | {"intent": Jsonb(intent)})

    async def write(self, number: int, step: WriteStep) -> Record:
        """Do a write step: effect and outcome in one transaction."""
        async with self._run.write() as tx:
            outcome = await step.write(self._run, tx)
            await self._finish(tx, number, step, outcome)
        self._accepted(step)
        return outcome

    async def judge(
        self, number: int, step: ChildrenStep, children: Sequence[CommandView]
    ) -> Record:
        """Commit what the ends of a step's children mean."""
        async with self._run.write() as tx:
            outcome = await step.judge(self._run, tx, children)
            await self._finish(tx, number, step, outcome)
        self._accepted(step)
        return outcome

    async def conclude(self, number: int, step: WriteStep) -> Record:
        """Do the last step, and end the command with it: effect, outcome and end are one commit."""
        fencing, fence = self._run.membership.fencing, self._run.fence
        async with fencing.late(fence) as tx:
            outcome = await step.write(self._run, tx)
            event = self._definition.event(self._run, None)
            params = self._row(number, step) | {
                "outcome": Jsonb(outcome),
                "accepts": step.name == self._definition.accept_after,
                "event": None if event is None else Jsonb(told(event)),
            }
            if tx.begun:
                await tx.run(CONCLUDE, params)
            else:
                await fencing.once(fence, CONCLUDE_ALONE, params)
            if event is not None:
                tx.rings.add(EVENTS)
        self.ended = True
        self._accepted(step)
        return outcome

    async def finish(self, number: int, step: HostStep, intent: Record, outcome: Record) -> None:
        """Commit the outcome of a host step and what it means for the inventory."""
        async with self._run.write() as tx:
            await step.record(self._run, tx, intent, outcome)
            await self._finish(tx, number, step, outcome)
        self._accepted(step)

    async def fail(
        self, failed: tuple[int, Step] | None, error: EngineError, *, void: bool = False
    ) -> None:
        """Commit that a step failed (None: the command, before any step), and why.

        `void`: its intent surely had no effect, and needs no compensation.
        """
        told = {"kind": type(error).__name__, "error": str(error)}
        async with self._run.write() as tx:
            if failed is not None:
                number, step = failed
                row = self._row(number, step) | {"error": str(error), "void": void}
                await tx.run(FAIL_STEP, row)
                if isinstance(step, HostStep) and step.failed is not None:
                    await step.failed(self._run, tx, error)
            await tx.run(ERROR, told | {"command_id": self._run.command.command_id})

    async def undo(self, number: int, step: WriteStep | ChildrenStep, outcome: Record) -> None:
        """Reverse a step of the database: compensation and note of it in one transaction."""
        async with self._run.write() as tx:
            if step.undo is not None:
                await step.undo(self._run, tx, outcome)
            await tx.run(COMPENSATED, self._row(number, step))

    async def compensated(self, number: int, step: Step) -> None:
        """Commit that a host step was reversed."""
        async with self._run.write() as tx:
            await tx.run(COMPENSATED, self._row(number, step))

    async def end(self, state: State, error: EngineError | None, *, unclear: bool = False) -> None:
        """Make the command final, and tell it; `unclear`: what it left behind is not known."""
        async with self._run.write() as tx:
            if unclear and self._definition.unknown is not None:
                await self._definition.unknown(self._run, tx)
            params = {
                "command_id": self._run.command.command_id,
                "state": state,
                "unclear": unclear,
                "kind": None if error is None else type(error).__name__,
                "error": None if error is None else str(error),
            }
            await tx.run(END, params)
            event = self._definition.event(self._run, error)
            if event is not None:
                await append_event(tx, event)
            if state == "dead":
                await append_event(tx, self._alert(error))

    def _alert(self, error: EngineError | None) -> NewEvent:
        command = self._run.command
        return NewEvent(
            code=GIVEN_UP,
            severity="alert",
            description=f"{command.description}: {error}. See command {command.command_id}.",
            correlation_id=command.correlation_id,
            user_name=command.user_name,
            command_id=command.command_id,
        )

    async def _finish(self, tx: FencedTx, number: int, step: Step, outcome: Record) -> None:
        await tx.run(FINISH_STEP, self._row(number, step) | {"outcome": Jsonb(outcome)})
        if self._run.command.deaths:
            await tx.run(FARTHER, {"command_id": self._run.command.command_id})
        if step.name == self._definition.accept_after:
            await tx.run(ACCEPT, {"command_id": self._run.command.command_id})

    def _accepted(self, step: Step) -> None:
        if step.name == self._definition.accept_after:
            self._ring()

    def _row(self, number: int, step: Step) -> Record:
        return {
            "command_id": self._run.command.command_id,
            "number": number,
            "name": step.name,
            "title": step.title,
            "kind": step.kind,
            "attempt": self._run.claim.attempt,
            "token": self._run.token(),
        }
