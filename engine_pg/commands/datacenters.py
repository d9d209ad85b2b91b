"""Add, update and remove a data center."""

from __future__ import annotations

from typing import Final

from sqlalchemy import func, select

from engine_pg.cluster.fence import FencedTx
from engine_pg.commands.definition import Definition, WriteStep
from engine_pg.commands.parts import describing, given, named, note, subject, told, updating
from engine_pg.commands.run import Run
from engine_pg.db.tx import Record
from engine_pg.errors import Conflict
from engine_pg.inventory import tables
from engine_pg.inventory.reads import get
from engine_pg.inventory.rows import DataCenter
from engine_pg.inventory.writes import delete_row, insert_row


async def _insert(run: Run, tx: FencedTx) -> Record:
    row = DataCenter(data_center_id=run.subject_id, **given(DataCenter, run.params))
    note(run, row)
    await insert_row(tx, row)
    return {}


async def _delete(run: Run, tx: FencedTx) -> Record:
    row = await get(tx, DataCenter, run.subject_id)
    note(run, row)
    inside = await tx.first(
        select(func.count().label("n"))
        .select_from(tables.cluster)
        .where(tables.cluster.c.data_center_id == run.subject_id)
    )
    if inside and inside["n"]:
        raise Conflict(f"data center {row.name} has clusters; remove them first")
    await delete_row(tx, DataCenter, run.subject_id)
    return {"name": row.name}


DEFINITIONS: Final = (
    Definition(
        name="add_data_center",
        subject_kind="data_center",
        describe=describing("Adding data center {name}"),
        locks=named("data_center"),
        steps=(WriteStep(name="insert", title="Adding the data center", write=_insert),),
        event=told(
            950,
            "Data center {name} was added by {user}.",
            951,
            "Failed to add data center {name}: {error}",
        ),
    ),
    Definition(
        name="update_data_center",
        subject_kind="data_center",
        describe=describing("Updating data center {name}"),
        locks=named("data_center"),
        steps=(updating(DataCenter, "Updating the data center"),),
        event=told(
            952,
            "Data center {name} was updated by {user}.",
            953,
            "Failed to update data center {name}: {error}",
        ),
    ),
    Definition(
        name="remove_data_center",
        subject_kind="data_center",
        describe=describing("Removing data center {name}"),
        locks=subject("data_center"),
        steps=(WriteStep(name="delete", title="Removing the data center", write=_delete),),
        event=told(
            954,
            "Data center {name} was removed by {user}.",
            955,
            "Failed to remove data center {name}: {error}",
        ),
    ),
)
