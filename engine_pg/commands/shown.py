"""What people and their tools are shown of the cluster: one document for each question.

The command line prints these documents and REST answers with them: their keys are documented in
`docs/reference/rest.md` and stay. The cluster's looks are joined with the commands that stand
behind them, where the database has commands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from engine_pg.cluster import looks, waits
from engine_pg.cluster.looks import Leader, Lock, LockTable, Member, Totals
from engine_pg.cluster.waits import Agent, Edge, Party, Request
from engine_pg.commands.parked import locks_held
from engine_pg.db.tx import Tx
from engine_pg.formation import shown as formation

Document = dict[str, Any]

HAS_COMMANDS: Final = "select to_regclass('command') is not null as has"
OPEN: Final = """
select member_id, count(*) as n from command
 where ended_at is null and member_id is not null group by member_id
"""
DESCRIPTIONS: Final = """
select command_id, description from command where command_id = any(%(ids)s::uuid[])
"""


def plain(value: object) -> object:
    """Return a value as JSON has it."""
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds")
    return value


def _document(row: Member | Leader | Lock | Party) -> Document:
    return {each.name: plain(getattr(row, each.name)) for each in fields(row)}  # copies nothing


async def _has_commands(tx: Tx) -> bool:
    row = await tx.first(HAS_COMMANDS)
    return bool(row and row["has"])


async def _descriptions(tx: Tx, ids: Iterable[UUID | None]) -> dict[UUID, str]:
    wanted = sorted({id_ for id_ in ids if id_ is not None})
    if not wanted or not await _has_commands(tx):
        return {}
    return {
        row["command_id"]: row["description"] for row in await tx.all(DESCRIPTIONS, {"ids": wanted})
    }


async def members(
    tx: Tx, *, node: str | None = None, ended: bool = False, most: int = looks.MOST
) -> Document:
    """Return `members`."""
    found = await looks.members(tx, node=node, ended=ended, most=most)
    return members_of(found, await open_commands(tx) if await _has_commands(tx) else {})


def members_of(found: Sequence[Member], commands: Mapping[UUID, int]) -> Document:
    """Return `members` that were found, with how many commands each runs."""
    return {
        "members": [
            _document(each) | {"commands": commands.get(each.member_id, 0)} for each in found
        ]
    }


async def open_commands(tx: Tx) -> dict[UUID, int]:
    """Return how many commands each member runs."""
    return {row["member_id"]: row["n"] for row in await tx.all(OPEN)}


async def leaders(
    tx: Tx, *, node: str | None = None, name: str | None = None, most: int = looks.MOST
) -> Document:
    """Return `leaders`."""
    return leaders_of(await looks.leaders(tx, node=node, name=name, most=most))


def leaders_of(found: Sequence[Leader]) -> Document:
    """Return `leaders` that were found."""
    return {"leaders": [_document(each) for each in found]}


async def locks(
    tx: Tx,
    *,
    kind: str | None = None,
    id_: str | None = None,
    node: str | None = None,
    most: int = looks.MOST,
) -> Document:
    """Return `locks`."""
    found = await looks.locks(tx, kind=kind, id_=id_, node=node, most=most)
    described = await _descriptions(tx, (each.command_id for each in found))
    return {
        "locks": [
            _document(each) | {"command": described.get(each.command_id or UUID(int=0))}
            for each in found
        ]
    }


class _Graph:
    """The wait graph in one snapshot, with the names of the commands in it."""

    def __init__(self, requests: list[Request], edges: list[Edge], names: dict[UUID, str]) -> None:
        self.requests = requests
        self.edges = edges
        self._names = names

    def party(self, party: Party) -> Document:
        """Return somebody as a document."""
        name = self._names.get(party.command_id or UUID(int=0))
        return _document(party) | {"command": name}

    def waiter(self, request: Request) -> Document:
        """Return a request as a document, without whom it waits for."""
        return {
            "ticket": request.ticket,
            "keys": [asdict(key) for key in request.keys],
            **self.party(request.by),
        }

    def target(self, edge: Edge) -> Document:
        """Return whom an edge leads to."""
        return {
            "kind": edge.key.kind,
            "id": edge.key.id,
            "mode": edge.held.key.mode if edge.held else edge.key.mode,
            "token": edge.held.token if edge.held else None,
            "ticket": edge.ahead.ticket if edge.ahead else None,
            "how": "holds" if edge.held else "waits ahead",
            **self.party(edge.target),
        }


async def _graph(tx: Tx, local: Sequence[Request]) -> _Graph:
    requests = [*await looks.requests(tx), *local]
    edges = waits.edges(await looks.wanted_grants(tx, local), requests)
    parties = [*(each.by for each in requests), *(edge.target for edge in edges)]
    return _Graph(requests, edges, await _descriptions(tx, (p.command_id for p in parties)))


async def waiters(
    tx: Tx,
    local: Sequence[Request] = (),
    *,
    kind: str | None = None,
    id_: str | None = None,
    node: str | None = None,
    most: int = looks.MOST,
) -> Document:
    """Return `waiters`, each with whom it waits for; `local` are this process's without ticket."""
    graph = await _graph(tx, local)

    def asked_for(request: Request) -> bool:
        wanted = any(kind in (None, k.kind) and id_ in (None, k.id) for k in request.keys)
        return wanted and node in (None, request.by.node)

    chosen = [request for request in graph.requests if asked_for(request)][:most]
    targets: dict[int, list[Document]] = {id(request): [] for request in chosen}
    for edge in graph.edges:
        if (of := targets.get(id(edge.waiter))) is not None:
            of.append(graph.target(edge))
    return {"waiters": [graph.waiter(each) | {"waits_for": targets[id(each)]} for each in chosen]}


async def wait_graph(tx: Tx, local: Sequence[Request] = ()) -> Document:
    """Return the `agents`, the `edges` between them and the `cycles` among them."""
    graph = await _graph(tx, local)
    agents: dict[Agent, Document] = {}
    edges: list[Document] = []
    for edge in graph.edges:
        waiter, target = edge.waiter.by, edge.target
        for party in (waiter, target):
            if party.agent is not None:
                agents.setdefault(party.agent, asdict(party.agent) | _who(graph.party(party)))
        edges.append(
            {
                "from": waiter.agent and asdict(waiter.agent),
                "to": target.agent and asdict(target.agent),
                "from_ticket": edge.waiter.ticket,
                **{k: v for k, v in graph.target(edge).items() if k in _EDGE_KEYS},
            }
        )
    found = waits.cycles(graph.edges)
    return {
        "agents": list(agents.values()),
        "edges": edges,
        "cycles": [
            {"certain": each.certain, "agents": [asdict(agent) for agent in each.agents]}
            for each in found
        ],
    }


_EDGE_KEYS: Final = ("kind", "id", "mode", "token", "ticket", "how")
_AWAY: Final = "the database is away: locks, waiters and heartbeats are not known"
_LOCK_ALARM: Final = "more than half of the server's table of locks is used: {used} of {capacity}"


def _who(party: Document) -> Document:
    return {key: party[key] for key in ("node", "user_name", "reason", "command")}


async def status(tx: Tx) -> Document:
    """Return everything of the cluster in a few figures, and `warnings` in words."""
    members = [each for each in await looks.members(tx) if each.state != "ended"]
    leaders = await looks.leaders(tx)
    totals, table = await looks.totals(tx), await looks.lock_table(tx)
    parked = await locks_held(tx) if totals.orphaned and await _has_commands(tx) else 0
    parked = min(parked, totals.orphaned)  # counted a moment later
    epoch = {
        "id": totals.epoch_id,
        "timeline": totals.timeline,
        "since": plain(totals.epoch_since),
    }
    return {"epoch": epoch, **_people(members, leaders)} | {
        "locks": {
            "held": totals.held,
            "orphaned": totals.orphaned - parked,
            "parked": parked,
            "unresumed": totals.unresumed,
            "broken": totals.broken,
            "oldest_s": totals.oldest_lock_s,
        },
        "waiters": {"requests": totals.waiting, "oldest_s": totals.oldest_wait_s},
        "lock_table": asdict(table) | {"alarming": table.alarming},
        "warnings": [
            *_of_people(members, leaders),
            *_of_locks(totals, parked, table),
            *await formation.warnings(tx),
        ],
    }


def status_without_database(
    found: Sequence[Member], leaders: Sequence[Leader], epoch_id: int
) -> Document:
    """Return as much of the status as is known of members and leaders; the rest is null."""
    members = [each for each in found if each.state != "ended"]
    people = _people(members, leaders)
    people["members"]["paused"] = None
    return {"epoch": {"id": epoch_id, "timeline": None, "since": None}, **people} | {
        "locks": None,
        "waiters": None,
        "lock_table": None,
        "warnings": [_AWAY, *_of_people(members, leaders)],
    }


def _people(members: Sequence[Member], leaders: Sequence[Leader]) -> Document:
    return {
        "members": {
            "live": sum(each.state == "live" for each in members),
            "paused": sum(each.state == "paused" for each in members),
            "draining": sum(each.draining for each in members),
            "unresumed": sum(not each.resumed for each in members),
        },
        "leaders": {
            "declared": len(leaders),
            "exactly_one": all(each.held for each in leaders),
            "vacant": [each.name for each in leaders if not each.held],
        },
    }


def _of_people(members: Sequence[Member], leaders: Sequence[Leader]) -> Iterable[str]:
    if not members:
        yield "there is no member"
    for each in members:
        if each.state == "paused":
            yield f"{each.node} has not renewed its lease for {each.age_s:.1f} s"
    vacant = [each.name for each in leaders if not each.held]
    if vacant:
        yield f"nobody leads {', '.join(vacant[:5])}{' and more' if len(vacant) > 5 else ''}"


def _of_locks(totals: Totals, parked: int, table: LockTable) -> Iterable[str]:
    if totals.orphaned > parked:
        yield f"locks of ended members await an adopter: {totals.orphaned - parked}"
    if totals.unresumed:
        yield f"locks whose members have not resumed in this epoch: {totals.unresumed}"
    if table.alarming:
        yield _LOCK_ALARM.format(used=table.used, capacity=table.capacity)
