"""How a command reads: its locks, then its steps in order.

A `WriteStep` changes the database only: its effect and its outcome are one fenced transaction. A
`HostStep` touches a host: its intent is committed before the call and its outcome after, so that
whoever finds an intent without an outcome asks the host first. A `ChildrenStep` has other commands
do something: it submits them with its intent, and nobody runs the command until they have ended.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from engine_pg.cluster.fence import FencedTx
from engine_pg.cluster.locks import Wanted
from engine_pg.commands.rows import CommandView, StepKind, StepView
from engine_pg.commands.run import Run
from engine_pg.db.tx import Record
from engine_pg.errors import EngineError
from engine_pg.inventory.writes import NewEvent

COMMANDS: Final = "commands"
URGENT: Final = "urgent"
"""The queues: each has places of its own at every node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteStep:
    """A step whose effect is in the database: `write` returns its outcome and commits with it."""

    name: str
    title: str
    write: Callable[[Run, FencedTx], Awaitable[Record]]
    prepare: Callable[[Run], Awaitable[None]] | None = None
    undo: Callable[[Run, FencedTx, Record], Awaitable[None]] | None = None
    kind: StepKind = "executing"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostStep:
    """A step whose effect is at a host.

    `plan` returns the intent; `act` does it and returns the outcome; `look` asks the host whether
    it happened (None: no); `record` writes what it means with the outcome; `undo` reverses the
    effect; `failed` writes what a failure means. `patience_s` is how long an unreachable host is
    waited for. `breaks_off`: `act` and `look` have the host break off when the run is halted, and
    then raise the reason, or return the outcome that came before it.
    """

    name: str
    title: str
    plan: Callable[[Run, FencedTx], Awaitable[Record]]
    act: Callable[[Run, Record], Awaitable[Record]]
    look: Callable[[Run, Record], Awaitable[Record | None]]
    record: Callable[[Run, FencedTx, Record, Record], Awaitable[None]]
    undo: Callable[[Run, Record], Awaitable[None]] | None = None
    failed: Callable[[Run, FencedTx, EngineError], Awaitable[None]] | None = None
    changes_host: bool = True
    breaks_off: bool = False
    patience_s: float = 30.0
    kind: StepKind = "executing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A command that a step asks for; `key` tells it from the step's other ones, for ever."""

    key: str
    name: str
    subject_id: UUID
    params: Record


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildrenStep:
    """A step that is done by other commands.

    `plan` returns them; it is called once. `judge` says what their ends mean: it returns the
    outcome, and writes what goes with it, or raises. A halt cancels those that have not ended;
    with `fail_fast` so does the first of them that ends without success.
    """

    name: str
    title: str
    plan: Callable[[Run, FencedTx], Awaitable[Sequence[Child]]]
    judge: Callable[[Run, FencedTx, Sequence[CommandView]], Awaitable[Record]]
    undo: Callable[[Run, FencedTx, Record], Awaitable[None]] | None = None
    fail_fast: bool = False
    kind: StepKind = "executing"


Step = WriteStep | HostStep | ChildrenStep


def lasting(step: Step) -> bool:
    """Tell whether a step, once begun, is not taken back: what comes after it is gone through."""
    return isinstance(step, HostStep) and step.changes_host and step.undo is None


def breakable(step: Step) -> bool:
    """Tell whether a host can be asked to break a step off that is under way."""
    return isinstance(step, HostStep) and step.breaks_off


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """A command: what it is called, what it locks, its steps, the events that tell its end.

    `accept_after` names the step after which the caller is answered; None: after the last one.
    `unknown` writes what it means when the outcome can't be learned in time. `deadline_s` seconds
    after its submission it is halted, unless the submission says otherwise. `queue` names whose
    places its runs take, and of those that wait there, a higher `priority` goes first.
    """

    name: str
    subject_kind: str
    describe: Callable[[Mapping[str, Any]], str]
    locks: Callable[[CommandView], Sequence[Wanted]]
    steps: tuple[Step, ...]
    event: Callable[[Run, EngineError | None], NewEvent | None]
    accept_after: str | None = None
    unknown: Callable[[Run, FencedTx], Awaitable[None]] | None = None
    lock_wait_s: float = 0.0
    deadline_s: float = 3600.0
    queue: str = COMMANDS
    priority: int = 0

    def past_return(self, steps: Iterable[StepView]) -> Step | None:
        """Return the step that was begun and is not taken back, if there is one."""
        for each in sorted(steps, key=lambda step: step.number):
            if each.number > len(self.steps) or each.state not in ("started", "finished"):
                continue
            step = self.steps[each.number - 1]
            if lasting(step) and (each.state == "finished" or not breakable(step)):
                return step
        return None

    def under_way(self, steps: Iterable[StepView]) -> bool:
        """Tell whether a host may be at a step that it can be asked to break off."""
        begun = [each for each in steps if each.state == "started" and each.intent is not None]
        known = (each.number for each in begun if each.number <= len(self.steps))
        return any(breakable(self.steps[number - 1]) for number in known)
