"""What a formation looks like now: what its monitor says, and what each server says itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, LiteralString

from engine_pg.errors import EngineError
from engine_pg.formation.asking import Row, ask
from engine_pg.formation.place import ADDRESS, MONITOR, Place

NODES: Final = """
select nodename as name, nodeid as number, nodehost as host, nodeport as port,
       reportedstate::text as state, goalstate::text as goal,
       health, reportedtli as timeline, reportedlsn::text as lsn, reportedpgisrunning as running,
       reportedrepstate as sync, candidatepriority as priority, replicationquorum as quorum,
       extract(epoch from clock_timestamp() - reporttime)::float8 as silent_s,
       (select number_sync_standbys from pgautofailover.formation
         where formationid = 'default') as wanted_standbys
  from pgautofailover.node
 where formationid = 'default'
 order by nodeid
"""
SELF: Final = """
select pg_is_in_recovery() as in_recovery,
       pg_is_in_recovery() or current_setting('default_transaction_read_only') = 'on' as read_only,
       current_setting('synchronous_standby_names') as standby_names,
       current_setting('synchronous_commit') not in ('off', 'local') as waits,
       pg_has_role('pg_read_all_stats', 'usage') as sees_standbys,
       (select coalesce(jsonb_object_agg(application_name, jsonb_build_object(
                 'sync', sync_state, 'address', host(client_addr),
                 'lag', pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn))), '{}')
          from pg_stat_replication
         where state = 'streaming' and not pg_is_in_recovery()) as standbys
"""
"""Without pg_read_all_stats it tells no standby; the monitor then does. Who is asked in a
transaction that only reads is not for that reason read-only."""
GOOD: Final = frozenset({"single", "primary", "secondary"})
WRITABLE: Final = frozenset({"single", "primary", "wait_primary", "join_primary", "apply_settings"})
SYNCHRONOUS: Final = frozenset({"sync", "quorum"})
SILENT_S: Final = 5.0
_ALONE: Final = "no standby is synchronous: what is committed now is on one server alone"


@dataclass(frozen=True, slots=True)
class NodeState:
    """One data node."""

    name: str
    address: str
    state: str  # as its keeper reported last, and
    goal: str  # as the monitor wants it
    access: str  # what its server lets us do: read-write, read-only, or away; empty: not asked
    healthy: bool = False
    timeline: int = 0
    lsn: str = ""
    sync: str = ""  # as the primary sees it
    lag_bytes: int | None = None
    silent_s: float | None = None
    priority: int = 0  # of candidates for primary; 0: it is none
    quorum: bool = False  # whether it counts among those that acknowledge commits


@dataclass(frozen=True, slots=True)
class FormationState:
    """All nodes and the monitor; `warnings` are sentences about all that is not well."""

    profile: str
    monitor: str  # up or away; none: nobody said where it is
    nodes: tuple[NodeState, ...]
    warnings: tuple[str, ...] = field(default=())
    synchronous: bool | None = None  # whether each commit waits for a standby, by the primary
    standby_names: str = ""
    wanted_standbys: int | None = None

    @property
    def primary(self) -> NodeState | None:
        """Return the node that takes writes, if there is exactly one."""
        writable = [node for node in self.nodes if node.access == "read-write"]
        return writable[0] if len(writable) == 1 else None

    @property
    def settled(self) -> bool:
        """Say whether a primary takes writes, all others follow it, and nothing is under way."""
        known = all(node.state == node.goal and node.state in GOOD for node in self.nodes)
        synchronous = [node for node in self.nodes if node.sync in SYNCHRONOUS]
        return bool(self.primary and known and len(synchronous) == len(self.nodes) - 1)

    def document(self) -> dict[str, Any]:
        """Return it as a document with keys that stay."""
        primary = self.primary
        return asdict(self) | {
            "primary": primary.name if primary else None,
            "settled": self.settled,
            "warnings": list(self.warnings),
        }


async def look(place: Place) -> FormationState:
    """Ask the monitor and all servers at once."""
    async with asyncio.TaskGroup() as group:
        told = group.create_task(_rows(place, MONITOR, NODES))
        own = {name: group.create_task(_rows(place, name, SELF)) for name in place.nodes}
    selves = {name: rows.result()[0] for name, rows in own.items() if rows.result()}
    addresses = {name: f"{ADDRESS}:{place.memory.ports[name]}" for name in place.nodes}
    return assembled(told.result(), selves, addresses, profile=place.memory.profile)


def assembled(
    told: Iterable[Row],
    selves: Mapping[str, Row],
    addresses: Mapping[str, str],
    *,
    profile: str = "",
    unheard: str = "away",
) -> FormationState:
    """Put together what the monitor told of nodes and what servers told of themselves.

    `unheard` is the access of those that told nothing.
    """
    known = {row["name"]: row for row in told}
    writable = [row for row in selves.values() if not row["read_only"]]
    head = next((row for row in known.values() if row["state"] in WRITABLE), None)
    nodes = tuple(
        _told_of(known[name], addresses[name], access, _follower(known[name], head, writable))
        if name in known
        else NodeState(name, addresses[name], "unknown", "unknown", access)
        for name in addresses
        for access in [_access(selves.get(name), unheard)]
    )
    primary = writable[0] if len(writable) == 1 else None
    state = FormationState(
        profile,
        "up" if known else "away",
        nodes,
        synchronous=None if primary is None else waits_for_standby(primary),
        standby_names="" if primary is None else primary["standby_names"],
        wanted_standbys=next((row["wanted_standbys"] for row in known.values()), None),
    )
    return replace(state, warnings=tuple(warnings_of(state)))


def watched(told: Sequence[Row], own: Row) -> FormationState:
    """Put together what the monitor told and what its primary did; nobody else is asked."""
    addresses = {row["name"]: f"{row['host']}:{row['port']}" for row in told}
    heads = [row["name"] for row in told if row["state"] in WRITABLE]
    selves = {heads[0]: own} if len(heads) == 1 else {}
    return replace(
        assembled(told, selves, addresses, unheard=""),
        monitor="up",
        synchronous=waits_for_standby(own),
        standby_names=own["standby_names"],
    )


def waits_for_standby(own: Row) -> bool:
    """Say whether each commit on a primary waits until a standby has it."""
    return bool(own["standby_names"].strip()) and own["waits"]


async def _rows(place: Place, name: str, query: LiteralString) -> list[Row]:
    try:
        return await ask(place, name, query)
    except EngineError:
        return []


def _told_of(told: Row, address: str, access: str, seen: tuple[str, int | None]) -> NodeState:
    return NodeState(
        name=told["name"],
        address=address,
        state=told["state"],
        goal=told["goal"],
        access=access,
        healthy=told["health"] == 1,
        timeline=told["timeline"],
        lsn=told["lsn"],
        sync=seen[0],
        lag_bytes=seen[1],
        silent_s=round(told["silent_s"], 1),
        priority=told["priority"],
        quorum=told["quorum"],
    )


def _follower(told: Row, head: Row | None, writable: list[Row]) -> tuple[str, int | None]:
    """Return how a node follows: as the primary sees it, or else by the reports to the monitor."""
    slot = f"pgautofailover_standby_{told['number']}"
    for row in writable:
        if slot in row["standbys"]:
            seen = row["standbys"][slot]
            return seen["sync"] or "", None if seen["lag"] is None else int(seen["lag"])
    if head is None or told is head or any(row["sees_standbys"] for row in writable):
        return "", None
    behind = max(0, _position(head["lsn"]) - _position(told["lsn"]))
    follows = told["state"] == "secondary" and told["quorum"]
    return head["sync"] if follows else "", behind


def _position(lsn: str) -> int:
    high, low = lsn.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def _access(own: Row | None, unheard: str) -> str:
    if own is None:
        return unheard
    return "read-only" if own["read_only"] or own["in_recovery"] else "read-write"


def warnings_of(state: FormationState) -> list[str]:
    """Return sentences about all that is not well."""
    said: list[str] = []
    if state.monitor == "away":
        said.append("the monitor does not answer: writes go on, and nothing fails over")
    said += _of_writable(state)
    for node in state.nodes:
        if node.silent_s is not None and node.silent_s > SILENT_S:
            said.append(f"{node.name} has not reported for {node.silent_s:g} s")
        if node.state != node.goal:
            said.append(f"{node.name} is on its way from {node.state} to {node.goal}")
    return said


def _of_writable(state: FormationState) -> Iterator[str]:
    writable = [node.name for node in state.nodes if node.access == "read-write"]
    if state.monitor == "none":  # nobody tells who is the primary; who answers is
        if not state.synchronous:
            yield _ALONE
    elif not writable:
        yield "no node takes writes: a failover is under way"
    elif len(writable) > 1:
        yield f"{' and '.join(writable)} take writes: an old primary is about to stop"
    elif not any(node.sync in SYNCHRONOUS for node in state.nodes):
        waits = "no standby is synchronous: commits wait until one is"
        yield waits if state.synchronous else _ALONE
