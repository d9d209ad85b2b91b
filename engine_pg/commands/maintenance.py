"""Take a host out of service: nothing is placed there any more, its VMs move, and it rests.

While VMs move off, the host's lock is only shared, as each of them needs it too; that nobody else
takes the host out of service, and that nothing is brought to it, is a lock of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import func, select

from engine_pg.cluster.fence import FencedTx
from engine_pg.cluster.locks import Wanted
from engine_pg.commands.definition import Child, ChildrenStep, Definition, WriteStep
from engine_pg.commands.migrate_vm import MAINTENANCE
from engine_pg.commands.parts import describing, exclusive, note, shared, told
from engine_pg.commands.rows import CommandView
from engine_pg.commands.run import Run
from engine_pg.db.tx import Record
from engine_pg.errors import Conflict
from engine_pg.inventory import tables
from engine_pg.inventory.reads import get
from engine_pg.inventory.rows import Host
from engine_pg.inventory.writes import update_row
from engine_pg.scheduling.placement import closed


def _locks(command: CommandView) -> list[Wanted]:
    return [shared("host", command.subject_id), exclusive(MAINTENANCE, command.subject_id)]


async def _prepare(run: Run, tx: FencedTx) -> Record:
    row = await get(tx, Host, run.subject_id)
    note(run, row)
    if row.status == "maintenance":
        raise Conflict(f"host {row.name} is in maintenance already")
    await closed(tx, row.cluster_id)
    detail = str(run.params.get("reason") or "")
    values = {"status": "preparing_for_maintenance", "status_detail": detail}
    await update_row(tx, Host, row.host_id, values)
    return {"was": row.status, "detail": row.status_detail}


async def _as_before(run: Run, tx: FencedTx, outcome: Record) -> None:
    values = {"status": outcome["was"], "status_detail": outcome["detail"]}
    await update_row(tx, Host, run.subject_id, values)


async def _movers(run: Run, tx: FencedTx) -> Sequence[Child]:
    rows = await tx.all(
        select(tables.vm.c.vm_id, tables.vm.c.name)
        .where(tables.vm.c.host_id == run.subject_id)
        .order_by(tables.vm.c.vm_id)
    )
    return [
        Child(
            key=str(row["vm_id"]),
            name="migrate_vm",
            subject_id=row["vm_id"],
            params={"name": row["name"]},
        )
        for row in rows
    ]


async def _emptied(_run: Run, _tx: FencedTx, children: Sequence[CommandView]) -> Record:
    stuck = [child for child in children if child.state != "succeeded"]
    if stuck:  # the others were cancelled because of it
        first = next((child for child in stuck if child.state != "cancelled"), stuck[0])
        raise Conflict(f"{len(stuck)} VMs did not move: {first.description}: {first.error}")
    return {"moved": len(children)}


async def _maintain(run: Run, tx: FencedTx) -> Record:
    row = await get(tx, Host, run.subject_id)
    note(run, row)
    running = await tx.first(
        select(func.count().label("n"))
        .select_from(tables.vm)
        .where(tables.vm.c.host_id == row.host_id)
    )
    if running and running["n"]:
        raise Conflict(f"host {row.name} runs {running['n']} VMs still")
    await update_row(tx, Host, row.host_id, {"status": "maintenance"})
    return {}


DEFINITIONS: Final = (
    Definition(
        name="deactivate_host",
        subject_kind="host",
        describe=describing("Moving host {name} to maintenance"),
        locks=_locks,
        lock_wait_s=5.0,
        deadline_s=4 * 3600.0,
        steps=(
            WriteStep(
                name="prepare",
                title="Preparing for maintenance",
                write=_prepare,
                undo=_as_before,
                kind="validating",
            ),
            ChildrenStep(
                name="empty",
                title="Moving its VMs elsewhere",
                plan=_movers,
                judge=_emptied,
                fail_fast=True,
            ),
            WriteStep(name="maintain", title="Moving to maintenance", write=_maintain),
        ),
        event=told(
            15,
            "Host {name} was moved to maintenance by {user}.",
            18,
            "Failed to move host {name} to maintenance: {error}",
        ),
    ),
)
