"""Add, update and remove a cluster."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from sqlalchemy import func, select

from engine_pg.cluster.fence import FencedTx
from engine_pg.cluster.locks import Wanted
from engine_pg.commands.definition import Definition, WriteStep
from engine_pg.commands.parts import (
    describing,
    given,
    named,
    note,
    shared,
    subject,
    told,
    updating,
)
from engine_pg.commands.rows import CommandView
from engine_pg.commands.run import Run
from engine_pg.db.tx import Record
from engine_pg.errors import Conflict
from engine_pg.inventory import tables
from engine_pg.inventory.reads import get
from engine_pg.inventory.rows import Cluster, DataCenter
from engine_pg.inventory.writes import delete_row, insert_row


def _locks(command: CommandView) -> list[Wanted]:
    return [*named("cluster")(command), shared("data_center", command.params["data_center_id"])]


async def _insert(run: Run, tx: FencedTx) -> Record:
    await get(tx, DataCenter, UUID(run.params["data_center_id"]))
    row = Cluster(cluster_id=run.subject_id, **given(Cluster, run.params))
    note(run, row)
    await insert_row(tx, row)
    return {}


async def _delete(run: Run, tx: FencedTx) -> Record:
    row = await get(tx, Cluster, run.subject_id)
    note(run, row)
    for table, things in ((tables.host, "hosts"), (tables.vm, "VMs")):
        inside = await tx.first(
            select(func.count().label("n"))
            .select_from(table)
            .where(table.c.cluster_id == run.subject_id)
        )
        if inside and inside["n"]:
            raise Conflict(f"cluster {row.name} has {things}; remove them first")
    await delete_row(tx, Cluster, run.subject_id)
    return {"name": row.name}


DEFINITIONS: Final = (
    Definition(
        name="add_cluster",
        subject_kind="cluster",
        describe=describing("Adding cluster {name}"),
        locks=_locks,
        lock_wait_s=2.0,
        steps=(WriteStep(name="insert", title="Adding the cluster", write=_insert),),
        event=told(
            809, "Cluster {name} was added by {user}.", 810, "Failed to add cluster {name}: {error}"
        ),
    ),
    Definition(
        name="update_cluster",
        subject_kind="cluster",
        describe=describing("Updating cluster {name}"),
        locks=named("cluster"),
        steps=(updating(Cluster, "Updating the cluster"),),
        event=told(
            811,
            "Cluster {name} was updated by {user}.",
            812,
            "Failed to update cluster {name}: {error}",
        ),
    ),
    Definition(
        name="remove_cluster",
        subject_kind="cluster",
        describe=describing("Removing cluster {name}"),
        locks=subject("cluster"),
        steps=(WriteStep(name="delete", title="Removing the cluster", write=_delete),),
        event=told(
            813,
            "Cluster {name} was removed by {user}.",
            814,
            "Failed to remove cluster {name}: {error}",
        ),
    ),
)
