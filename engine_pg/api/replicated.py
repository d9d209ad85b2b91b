"""All tables that a node's replica holds, and what Prometheus is told of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from engine_pg.api.accounts.replicated import ACCOUNTS
from engine_pg.api.metrics import Sample, exposition
from engine_pg.commands.replicated import COMMANDS
from engine_pg.replica.cluster_settings import SETTINGS
from engine_pg.replica.coordination import COORDINATION
from engine_pg.replica.formation import FORMATION
from engine_pg.replica.inventory import INVENTORY
from engine_pg.replica.replica import Replica
from engine_pg.replica.table import Table
from engine_pg.schedules.replicated import SCHEDULES

TABLES: Final[tuple[Table[Any], ...]] = (
    *INVENTORY,
    *COORDINATION,
    *COMMANDS,
    *SETTINGS,
    *SCHEDULES,
    *ACCOUNTS,
    *FORMATION,
)

GAUGES: Final[Mapping[str, tuple[str, str]]] = {
    "engine_node_replica_age_seconds": (
        "gauge",
        "How long ago this node certainly knew all that was committed.",
    ),
    "engine_node_replica_lag_seconds": (
        "gauge",
        "From the last change's being written to its being in the replica.",
    ),
    "engine_node_replica_away": ("gauge", "Whether the replica is cut off from the database."),
    "engine_node_replica_rows": ("gauge", "Rows in the replica."),
    "engine_node_replica_changes_total": ("counter", "Changes applied."),
    "engine_node_replica_copies_total": ("counter", "Copies taken, the first one included."),
    "engine_node_replica_resyncs_total": ("counter", "Times that the feed could not be followed."),
    "engine_node_replica_losses_total": (
        "counter",
        "Times that the replica was cut off from the database.",
    ),
    "engine_node_replica_longest_hold_seconds": (
        "gauge",
        "For how long the replica has held up the node at most.",
    ),
    "engine_node_replica_barriers_total": (
        "counter",
        "Statements that let the waiting reads pass, all at once.",
    ),
    "engine_node_reads_total": ("counter", "Reads, by what they got: fresh, stale or refused."),
}


def of_replica(replica: Replica) -> Iterable[str]:
    """Yield the exposition of a replica."""
    figures, standing = replica.figures, replica.standing
    values: dict[str, float] = {
        "replica_lag_seconds": figures.lag_s,
        "replica_away": standing.away,
        "replica_changes_total": figures.changes,
        "replica_copies_total": figures.copies,
        "replica_resyncs_total": figures.resyncs,
        "replica_barriers_total": figures.barriers,
        "replica_losses_total": figures.losses,
        "replica_longest_hold_seconds": figures.longest_hold_s,
    }
    if standing.age_s is not None:
        values["replica_age_seconds"] = standing.age_s
    by_label = {
        "replica_rows": ("table", {k.lstrip("_"): n for k, n in standing.rows.items()}),
        "reads_total": ("how", figures.reads),
    }
    for name, (kind, about) in GAUGES.items():
        short = name.removeprefix("engine_node_")
        label, counted = by_label.get(short, ("", {}))
        samples = [Sample(name, ((label, key),), count) for key, count in sorted(counted.items())]
        if short in values:
            samples = [Sample(name, (), values[short])]
        yield from exposition(kind, name, about, samples)
