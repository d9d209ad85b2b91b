"""Who waits for whom: the wait graph, from grants and requests; no database, no clock.

A request waits for every grant in its way and for the requests before it in the queue. An *agent*
is who holds and waits: a command, or, where none is named, a member, whose many coroutines nobody
can tell apart. A cycle of commands is a deadlock (until a wait's time is up); one that leads
through a bare member may be one.

Does not promise: that it was so at one instant. Requests of a process that have no ticket are
known to that process alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Final, Literal
from uuid import UUID

EXCLUSIVE: Final = "exclusive"
MOST_CYCLES: Final = 20


@dataclass(frozen=True, slots=True)
class Agent:
    """Who holds and who waits: a command, or a member in its own right."""

    kind: Literal["command", "member"]
    id: str


@dataclass(frozen=True, slots=True)
class Party:
    """Somebody who holds or waits, as people want to know him."""

    member_id: UUID | None
    node: str | None
    command_id: UUID | None = None
    user_name: str = ""
    reason: str = ""
    age_s: float = 0.0

    @property
    def agent(self) -> Agent | None:
        """The node of the graph; None: nobody, until the command is adopted."""
        if self.command_id is not None:
            return Agent("command", str(self.command_id))
        return None if self.member_id is None else Agent("member", str(self.member_id))


@dataclass(frozen=True, slots=True)
class KeyMode:
    """A key and the mode in which it is held or wanted."""

    kind: str
    id: str
    mode: str

    def excludes(self, other: KeyMode) -> bool:
        """Tell whether the two can't be held at once."""
        same = self.kind == other.kind and self.id == other.id
        return same and EXCLUSIVE in (self.mode, other.mode)


@dataclass(frozen=True, slots=True)
class Held:
    """A grant."""

    key: KeyMode
    token: int
    by: Party


@dataclass(frozen=True, slots=True)
class Request:
    """Somebody who waits for some keys; without a ticket: in one process, behind all tickets."""

    keys: tuple[KeyMode, ...]
    by: Party
    ticket: int | None = None


@dataclass(frozen=True, slots=True)
class Edge:
    """One request waits for a grant (`held`) or for an earlier request (`ahead`)."""

    waiter: Request
    key: KeyMode
    held: Held | None = None
    ahead: Request | None = None

    @property
    def target(self) -> Party:
        """Who is waited for."""
        by = self.held or self.ahead
        assert by is not None
        return by.by


@dataclass(frozen=True, slots=True)
class Cycle:
    """Agents that wait for each other in a ring; `certain`: all of them are commands."""

    agents: tuple[Agent, ...]
    certain: bool


def edges(grants: Iterable[Held], requests: Sequence[Request]) -> list[Edge]:
    """Return who waits for whom.

    Of a queue only the nearest are named: what stands further ahead is waited for through them.
    """
    by_key: defaultdict[tuple[str, str], list[Held]] = defaultdict(list)
    for held in grants:
        by_key[held.key.kind, held.key.id].append(held)
    found: list[Edge] = []
    queues: defaultdict[tuple[str, str], list[tuple[Request, KeyMode]]] = defaultdict(list)
    for request in sorted(requests, key=_turn):
        for key in request.keys:
            place = key.kind, key.id
            found += [Edge(request, key, held=h) for h in by_key[place] if key.excludes(h.key)]
            found += [Edge(request, key, ahead=each) for each in _nearest(queues[place], key)]
            queues[place].append((request, key))
    return found


def _turn(request: Request) -> tuple[bool, int]:
    return request.ticket is None, request.ticket or 0


def _nearest(queue: Sequence[tuple[Request, KeyMode]], key: KeyMode) -> list[Request]:
    """Return the shared requests right ahead of an exclusive one, or else the last exclusive."""
    near: list[Request] = []
    for request, other in reversed(queue):
        if other.mode == EXCLUSIVE:
            return near or [request]
        if key.mode == EXCLUSIVE:
            near.append(request)
    return near


def cycles(found: Iterable[Edge]) -> list[Cycle]:
    """Return rings among agents until none is left, deadlocks first; at most `MOST_CYCLES`.

    A member that waits for itself is none: those are two coroutines. A command that waits for
    what it holds itself is.
    """
    graph: defaultdict[Agent, set[Agent]] = defaultdict(set)
    for edge in found:
        waiter, target = edge.waiter.by.agent, edge.target.agent
        if waiter is None or target is None:
            continue
        if waiter != target or (edge.held is not None and waiter.kind == "command"):
            graph[waiter].add(target)
    commands = {
        waiter: {target for target in targets if target.kind == "command"}
        for waiter, targets in graph.items()
        if waiter.kind == "command"
    }
    certain = _rings(commands)
    for ring in certain:
        _cut(graph, ring)
    told = [Cycle(ring, certain=True) for ring in certain]
    told += [Cycle(ring, certain=False) for ring in _rings(graph)]
    return told[:MOST_CYCLES]


def _rings(graph: dict[Agent, set[Agent]]) -> list[tuple[Agent, ...]]:
    """Take rings out of a graph until it has none."""
    rings: list[tuple[Agent, ...]] = []
    while len(rings) < MOST_CYCLES:
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            closed: list[Agent] = error.args[1]
            ring = tuple(reversed(closed[1:]))
            _cut(graph, ring)
            rings.append(ring)
        else:
            break
    return rings


def _cut(graph: dict[Agent, set[Agent]], ring: Sequence[Agent]) -> None:
    for waiter, target in zip(ring, [*ring[1:], ring[0]], strict=True):
        graph[waiter].discard(target)
