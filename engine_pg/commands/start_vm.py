"""Start a VM: place it, create it at the host, see it launched."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from sqlalchemy import func

from engine_pg.cluster.fence import FencedTx
from engine_pg.cluster.locks import LockBusy
from engine_pg.commands.definition import Definition, HostStep
from engine_pg.commands.parts import describing, note, shared, subject, told
from engine_pg.commands.run import Run
from engine_pg.commands.vmhost import host_of, placing, report_of, unclear
from engine_pg.db.tx import Record
from engine_pg.errors import Conflict, NotFound
from engine_pg.hosts.domain import DomainSpec, domain_xml
from engine_pg.inventory.reads import get
from engine_pg.inventory.rows import Vm
from engine_pg.inventory.writes import update_row
from engine_pg.scheduling.placement import candidates, reserve


async def _choose(run: Run) -> None:
    """Hold the best host that nobody is taking out of service."""
    pinned = run.params.get("host_id")
    async with run.db.read() as tx:
        vm = await get(tx, Vm, run.subject_id)
        note(run, vm)
        if vm.status != "down":
            raise Conflict(f"VM {vm.name} is {vm.status}")
        hosts = await candidates(tx, vm, UUID(pinned) if pinned else None)
    for host_id in hosts:
        try:
            await run.lock(shared("host", host_id))
        except LockBusy:
            continue
        run.notes["host_id"] = host_id
        return
    raise Conflict(f"no host that is up has room for VM {vm.name}")


async def _place(run: Run, tx: FencedTx) -> Record:
    vm = await get(tx, Vm, run.subject_id)
    if vm.status != "down":
        raise Conflict(f"VM {vm.name} is {vm.status}")
    host_id: UUID = run.notes["host_id"]
    await reserve(tx, vm, host_id)
    await update_row(tx, Vm, vm.vm_id, {"status": "wait_for_launch", "host_id": host_id})
    return {"host_id": str(host_id)}


async def _unplace(run: Run, tx: FencedTx, _outcome: Record) -> None:
    await update_row(tx, Vm, run.subject_id, {"status": "down", "host_id": None})


async def _plan(run: Run, tx: FencedTx) -> Record:
    note(run, await get(tx, Vm, run.subject_id))
    return {"host_id": run.outcomes["place"]["host_id"]}


async def _create(run: Run, intent: Record) -> Record:
    host = await host_of(run, intent)
    async with run.db.read() as tx:
        vm = await get(tx, Vm, run.subject_id)
    note(run, vm)
    driver = await run.driver(host)
    xml = domain_xml(
        DomainSpec(
            vm.vm_id,
            vm.name,
            vm.memory_bytes,
            vm.cpu_sockets,
            vm.cpu_cores,
            vm.cpu_threads,
            vm.os_type,
            run.token(),
        )
    )
    try:
        report = await driver.create_vm(run.ctx(), vm.vm_id, xml)
    except Conflict:
        known = await report_of(run, host, vm.vm_id)
        if known is None:
            raise
        if known.state != "down":  # the lock is ours: it runs there, whoever's late call began it
            return {"state": known.state}
        await driver.destroy_vm(run.ctx(), vm.vm_id)  # what is left of an earlier life
        report = await driver.create_vm(run.ctx(), vm.vm_id, xml)
    return {"state": report.state}


async def _created(run: Run, intent: Record) -> Record | None:
    report = await report_of(run, await host_of(run, intent), run.subject_id)
    return None if report is None or report.state == "down" else {"state": report.state}


async def _destroy(run: Run, intent: Record) -> None:
    driver = await run.driver(await host_of(run, intent))
    try:
        await driver.destroy_vm(run.ctx(), run.subject_id)
    except NotFound:
        return


async def _running(run: Run, tx: FencedTx, _intent: Record, outcome: Record) -> None:
    status = "powering_up" if outcome["state"] == "wait_for_launch" else outcome["state"]
    values = {"status": status, "started_at": func.now(), "stop_reason": ""}
    await update_row(tx, Vm, run.subject_id, values)


DEFINITIONS: Final = (
    Definition(
        name="start_vm",
        subject_kind="vm",
        describe=describing("Starting VM {name}"),
        locks=subject("vm"),
        steps=(
            placing(_choose, _place, _unplace),
            HostStep(
                name="create",
                title="Creating the VM on the host",
                plan=_plan,
                act=_create,
                look=_created,
                record=_running,
                undo=_destroy,
            ),
        ),
        accept_after="place",
        unknown=unclear,
        event=told(
            32, "VM {name} was started by {user}.", 54, "Failed to start VM {name}: {error}"
        ),
    ),
)
