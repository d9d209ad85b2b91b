"""What the API needs from the rest of a node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from engine_pg.api.accounts.passwords import Passwords
from engine_pg.api.changes.tail import Tail
from engine_pg.api.fragments import Fragments
from engine_pg.api.metrics import Metrics
from engine_pg.cluster.measures import Measures, Standing
from engine_pg.cluster.waits import Request
from engine_pg.commands.rows import CommandView, Submission
from engine_pg.configuration.live import LiveSettings
from engine_pg.db.database import Database
from engine_pg.formation.commits import Hang
from engine_pg.inventory.numbering import Numbering
from engine_pg.replica.reading import Reads

Until = Literal["accepted", "final"]


class Commands(Protocol):
    """Where commands are submitted (`engine_pg.commands.service`)."""

    async def perform(
        self, submission: Submission, *, until: Until = "final", bound_s: float = 20.0
    ) -> CommandView:
        """Submit and wait; a command that was refused raises its own error."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The collaborators of the API.

    `ready` returns the reasons why the node is not, `degraded` why it can answer reads only,
    `leaving` why it will soon be gone, in order;
    `standing` is of the node's present member, `waiting` its requests that have no ticket yet;
    `hang` is what it knows of commits that hang.
    """

    db: Database
    commands: Commands
    settings: LiveSettings
    tail: Tail
    reads: Reads
    numbering: Numbering
    ready: Callable[[], Sequence[str]] = tuple
    degraded: Callable[[], Sequence[str]] = tuple
    leaving: Callable[[], str] = str
    passwords: Passwords = field(default_factory=Passwords)
    metrics: Metrics = field(default_factory=Metrics)
    measures: Measures = field(default_factory=Measures)
    fragments: Fragments = field(default_factory=Fragments)
    standing: Callable[[], Standing | None] = lambda: None
    waiting: Callable[[], Sequence[Request]] = tuple
    hang: Callable[[], Hang | None] = lambda: None
