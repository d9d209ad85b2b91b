"""What a formation looks like now: what its monitor says, and what each server says itself."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, LiteralString

from engine_pg.errors import EngineError
from engine_pg.formation.asking import Row, ask
from engine_pg.formation.place import ADDRESS, MONITOR, Place

NODES: Final = """
select nodename as name, nodeid as number, reportedstate::text as state, goalstate::text as goal,
       health, reportedtli as timeline, reportedlsn::text as lsn, reportedpgisrunning as running,
       extract(epoch from clock_timestamp() - reporttime)::float8 as silent_s,
       (select number_sync_standbys from pgautofailover.formation
         where formationid = 'default') as wanted_standbys
  from pgautofailover.node
 where formationid = 'default'
 order by nodeid
"""
SELF: Final = """
select pg_is_in_recovery() as in_recovery,
       current_setting('transaction_read_only') = 'on' as read_only,
       (select coalesce(jsonb_object_agg(application_name, jsonb_build_object(
                 'sync', sync_state,
                 'lag', pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn))), '{}')
          from pg_stat_replication
         where state = 'streaming' and not pg_is_in_recovery()) as standbys
"""
GOOD: Final = frozenset({"single", "primary", "secondary"})
_SYNCHRONOUS: Final = frozenset({"sync", "quorum"})
_SILENT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class NodeState:
    """One data node."""

    name: str
    address: str
    state: str  # as its keeper reported last, and
    goal: str  # as the monitor wants it
    access: str  # what its server lets us do: read-write, read-only, or away
    healthy: bool = False
    timeline: int = 0
    lsn: str = ""
    sync: str = ""  # as the primary sees it
    lag_bytes: int | None = None
    silent_s: float | None = None


@dataclass(frozen=True, slots=True)
class FormationState:
    """All nodes and the monitor; `warnings` are sentences about all that is not well."""

    profile: str
    monitor: str  # up or away
    nodes: tuple[NodeState, ...]
    warnings: tuple[str, ...] = field(default=())

    @property
    def primary(self) -> NodeState | None:
        """Return the node that takes writes, if there is exactly one."""
        writable = [node for node in self.nodes if node.access == "read-write"]
        return writable[0] if len(writable) == 1 else None

    @property
    def settled(self) -> bool:
        """Say whether a primary takes writes, all others follow it, and nothing is under way."""
        known = all(node.state == node.goal and node.state in GOOD for node in self.nodes)
        synchronous = [node for node in self.nodes if node.sync in _SYNCHRONOUS]
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
    known = {row["name"]: row for row in told.result()}
    selves = {name: rows.result()[0] for name, rows in own.items() if rows.result()}
    nodes = tuple(_node(place, name, known.get(name), selves) for name in place.nodes)
    monitor = "up" if known else "away"
    state = FormationState(place.memory.profile, monitor, nodes)
    return replace(state, warnings=tuple(warnings_of(state)))


async def _rows(place: Place, name: str, query: LiteralString) -> list[Row]:
    try:
        return await ask(place, name, query)
    except EngineError:
        return []


def _node(place: Place, name: str, told: Row | None, selves: Mapping[str, Row]) -> NodeState:
    address = f"{ADDRESS}:{place.memory.ports[name]}"
    access = _access(selves.get(name))
    if told is None:
        return NodeState(name, address, "unknown", "unknown", access)
    seen = _as_standby(f"pgautofailover_standby_{told['number']}", selves)
    return NodeState(
        name=name,
        address=address,
        state=told["state"],
        goal=told["goal"],
        access=access,
        healthy=told["health"] == 1,
        timeline=told["timeline"],
        lsn=told["lsn"],
        sync=seen["sync"] or "" if seen else "",
        lag_bytes=None if seen is None or seen["lag"] is None else int(seen["lag"]),
        silent_s=round(told["silent_s"], 1),
    )


def _as_standby(slot: str, selves: Mapping[str, Row]) -> Row | None:
    for row in selves.values():
        if slot in row["standbys"] and not row["read_only"]:
            return row["standbys"][slot]
    return None


def _access(own: Row | None) -> str:
    if own is None:
        return "away"
    return "read-only" if own["read_only"] or own["in_recovery"] else "read-write"


def warnings_of(state: FormationState) -> list[str]:
    """Return sentences about all that is not well."""
    said: list[str] = []
    if state.monitor != "up":
        said.append("the monitor does not answer: writes go on, and nothing fails over")
    writable = [node.name for node in state.nodes if node.access == "read-write"]
    if not writable:
        said.append("no node takes writes: a failover is under way")
    elif len(writable) > 1:
        said.append(f"{' and '.join(writable)} take writes: an old primary is about to stop")
    elif not any(node.sync in _SYNCHRONOUS for node in state.nodes):
        said.append("no standby is synchronous: what is committed now is on one server alone")
    for node in state.nodes:
        if node.silent_s is not None and node.silent_s > _SILENT_S:
            said.append(f"{node.name} has not reported for {node.silent_s:g} s")
        if node.state != node.goal:
            said.append(f"{node.name} is on its way from {node.state} to {node.goal}")
    return said
