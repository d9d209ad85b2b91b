"""The table `formation`: what the singleton `formation-watch` saw last, for all nodes to know.

Does not promise: to be of this moment. `looked_at` says of which it is; figures that change with
every write (positions, lag) are up to ten seconds older than changes of states.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Final, LiteralString

from psycopg.types.json import Jsonb

from engine_pg.db.tx import Tx
from engine_pg.formation.state import SILENT_S, FormationState, NodeState

NAME: Final = "default"
TOPIC: Final = "_formation"
ALL: Final[LiteralString] = "select to_jsonb(t) as row from formation t"
READ: Final[LiteralString] = "select * from formation where name = %(name)s"
TURN: Final[LiteralString] = "select * from formation where name = %(name)s for update"
WRITE: Final[LiteralString] = """
insert into formation (name, monitor, synchronous, standby_names, wanted_standbys, primary_node,
                       nodes, looked_at, monitor_seen_at)
values (%(name)s, %(monitor)s, %(synchronous)s, %(standby_names)s, %(wanted_standbys)s,
        %(primary_node)s, %(nodes)s, clock_timestamp(),
        case when %(monitor)s = 'up' then clock_timestamp() end)
on conflict (name) do update
   set monitor = excluded.monitor, synchronous = excluded.synchronous,
       standby_names = excluded.standby_names, wanted_standbys = excluded.wanted_standbys,
       primary_node = excluded.primary_node, nodes = excluded.nodes,
       looked_at = excluded.looked_at,
       monitor_seen_at = coalesce(excluded.monitor_seen_at, formation.monitor_seen_at)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FormationRow:
    """A formation as it was seen last."""

    name: str
    monitor: str
    synchronous: bool
    looked_at: datetime
    standby_names: str = ""
    wanted_standbys: int | None = None
    primary_node: str | None = None
    nodes: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    monitor_seen_at: datetime | None = None

    def node_states(self) -> tuple[NodeState, ...]:
        """Return its nodes; what a later release writes of them beside is left out."""
        known = NodeState.__dataclass_fields__
        return tuple(
            NodeState(**{key: value for key, value in node.items() if key in known})
            for node in self.nodes
        )


async def read(tx: Tx, *, in_turn: bool = False) -> FormationRow | None:
    """Return what was seen last; `in_turn`: nobody else changes it until the transaction ends."""
    record = await tx.first(TURN if in_turn else READ, {"name": NAME})
    return None if record is None else FormationRow(**record)


async def write(tx: Tx, state: FormationState) -> None:
    """Keep what was seen now."""
    primary = state.primary
    values = {
        "name": NAME,
        "monitor": state.monitor,
        "synchronous": bool(state.synchronous),
        "standby_names": state.standby_names,
        "wanted_standbys": state.wanted_standbys,
        "primary_node": primary.name if primary else None,
        "nodes": Jsonb([asdict(node) for node in state.nodes]),
    }
    await tx.run(WRITE, values)


def signature(state: FormationState) -> tuple[object, ...]:
    """Return what is told at once when it changes: no positions, no seconds."""
    primary = state.primary
    return (
        *(state.monitor, bool(state.synchronous), state.standby_names, state.wanted_standbys),
        primary.name if primary else None,
        *((node.name, node.address, *_lasting(node)) for node in state.nodes),
    )


def _lasting(node: NodeState) -> tuple[object, ...]:
    return (
        *(node.state, node.goal, node.access, node.healthy, node.timeline, node.sync),
        *(node.priority, node.quorum, (node.silent_s or 0.0) > SILENT_S),
    )
