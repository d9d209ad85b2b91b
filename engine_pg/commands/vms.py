"""Add, update and remove a VM: what needs no host."""

from __future__ import annotations

from typing import Final
from uuid import UUID

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
)
from engine_pg.commands.rows import CommandView
from engine_pg.commands.run import Run
from engine_pg.db.tx import Record
from engine_pg.errors import Conflict, Invalid
from engine_pg.ids import BLANK_TEMPLATE_ID
from engine_pg.inventory.reads import get
from engine_pg.inventory.rows import Cluster, Vm
from engine_pg.inventory.writes import delete_row, insert_row, update_row

_SHAPE: Final = ("memory_bytes", "cpu_sockets", "cpu_cores", "cpu_threads")
"""What a running VM keeps until it is started anew."""


def _locks(command: CommandView) -> list[Wanted]:
    return [*named("vm")(command), shared("cluster", command.params["cluster_id"])]


async def _insert(run: Run, tx: FencedTx) -> Record:
    await get(tx, Cluster, UUID(run.params["cluster_id"]))
    row = Vm(vm_id=run.subject_id, **given(Vm, run.params))
    if row.template_id != BLANK_TEMPLATE_ID:
        raise Invalid(f"there is no template {row.template_id}")
    note(run, row)
    await insert_row(tx, row)
    return {}


async def _update(run: Run, tx: FencedTx) -> Record:
    row = await get(tx, Vm, run.subject_id)
    note(run, row)
    values = given(Vm, run.params)
    shape = [name for name in _SHAPE if name in values and values[name] != getattr(row, name)]
    if shape and row.status != "down":
        raise Conflict(f"VM {row.name} is {row.status}; stop it to change {', '.join(shape)}")
    if values:
        await update_row(tx, Vm, row.vm_id, values)
    return {}


async def _delete(run: Run, tx: FencedTx) -> Record:
    row = await get(tx, Vm, run.subject_id)
    note(run, row)
    if row.status != "down":
        raise Conflict(f"VM {row.name} is {row.status}; stop it first")
    await delete_row(tx, Vm, row.vm_id)
    return {"name": row.name}


DEFINITIONS: Final = (
    Definition(
        name="add_vm",
        subject_kind="vm",
        describe=describing("Adding VM {name}"),
        locks=_locks,
        lock_wait_s=2.0,
        steps=(WriteStep(name="insert", title="Adding the VM", write=_insert),),
        event=told(34, "VM {name} was created by {user}.", 60, "Failed to add VM {name}: {error}"),
    ),
    Definition(
        name="update_vm",
        subject_kind="vm",
        describe=describing("Updating VM {name}"),
        locks=named("vm"),
        lock_wait_s=2.0,
        steps=(WriteStep(name="write", title="Updating the VM", write=_update),),
        event=told(
            35, "VM {name} was updated by {user}.", 58, "Failed to update VM {name}: {error}"
        ),
    ),
    Definition(
        name="remove_vm",
        subject_kind="vm",
        describe=describing("Removing VM {name}"),
        locks=subject("vm"),
        steps=(WriteStep(name="delete", title="Removing the VM", write=_delete),),
        event=told(
            113, "VM {name} was removed by {user}.", 114, "Failed to remove VM {name}: {error}"
        ),
    ),
)
