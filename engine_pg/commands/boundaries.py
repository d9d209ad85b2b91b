"""Every place between two things that a command does: where its node may die.

A run tells of each that it comes to (`Run.reached`), and stops where its listener does not return.
Tests enumerate them, so that a new command or step is killed at each of them without being named.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from typing_extensions import override

from engine_pg.commands.definition import ChildrenStep, Definition, HostStep, Step, WriteStep

Place = Literal["begun", "intended", "done", "finished", "undoing", "undone", "compensated"]


@dataclass(frozen=True, slots=True)
class Boundary:
    """A place in a command: before, within or after one of its steps."""

    command: str
    step: str
    place: Place

    @override
    def __str__(self) -> str:
        """Return it as it is named on a command line."""
        return f"{self.command}/{self.step}/{self.place}"


def forward(definition: Definition) -> Iterator[Boundary]:
    """Yield the boundaries of a command that succeeds, in order."""
    for step in definition.steps:
        for place in _forward(step):
            yield Boundary(definition.name, step.name, place)


def backward(definition: Definition, failed: Step) -> Iterator[Boundary]:
    """Yield those of the reversal after the last moment of a step, in order."""
    steps = definition.steps[: definition.steps.index(failed) + 1]
    for step in reversed(steps):
        if step.undo is None or (step is failed and isinstance(step, WriteStep)):
            continue  # a write step that failed did nothing
        places: tuple[Place, ...] = ("undoing", "compensated")
        if isinstance(step, HostStep):
            places = ("undoing", "undone", "compensated")
        for place in places:
            yield Boundary(definition.name, step.name, place)


def _forward(step: Step) -> tuple[Place, ...]:
    match step:
        case HostStep():
            return ("begun", "intended", "done", "finished")
        case ChildrenStep():
            return ("begun", "intended", "finished")
        case WriteStep():
            return ("begun", "finished")


def end(definition: Definition) -> Boundary | None:
    """Return the boundary at which a command is over: its last step, if a write, ends it."""
    last = definition.steps[-1]
    ended = isinstance(last, WriteStep)
    return Boundary(definition.name, last.name, "finished") if ended else None
