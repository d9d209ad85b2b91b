"""Stop a VM at once, or ask its guest to shut down."""

from __future__ import annotations

from typing import Final

from sqlalchemy import func

from engine_pg.cluster.fence import FencedTx
from engine_pg.commands.definition import Definition, HostStep, WriteStep
from engine_pg.commands.parts import RUNNING, describing, note, shared, subject, told
from engine_pg.commands.run import Run
from engine_pg.commands.vmhost import host_of, report_of, unclear
from engine_pg.db.tx import Record
from engine_pg.errors import Conflict, NotFound
from engine_pg.inventory.reads import get
from engine_pg.inventory.rows import Vm
from engine_pg.inventory.writes import update_row


async def _hold_host(run: Run) -> None:
    async with run.db.read() as tx:
        vm = await get(tx, Vm, run.subject_id)
    note(run, vm)
    if vm.host_id is None or vm.status not in RUNNING:
        raise Conflict(f"VM {vm.name} is {vm.status}")
    await run.lock(shared("host", vm.host_id), wait_s=5.0)


async def _powering_down(run: Run, tx: FencedTx) -> Record:
    vm = await get(tx, Vm, run.subject_id)
    if vm.host_id is None or vm.status not in RUNNING:
        raise Conflict(f"VM {vm.name} is {vm.status}")
    await update_row(tx, Vm, vm.vm_id, {"status": "powering_down"})
    return {"host_id": str(vm.host_id), "was": vm.status}


async def _as_before(run: Run, tx: FencedTx, outcome: Record) -> None:
    await update_row(tx, Vm, run.subject_id, {"status": outcome["was"]})


async def _plan(run: Run, tx: FencedTx) -> Record:
    note(run, await get(tx, Vm, run.subject_id))
    return {"host_id": run.outcomes["validate"]["host_id"]}


async def _destroy(run: Run, intent: Record) -> Record:
    driver = await run.driver(await host_of(run, intent))
    try:
        await driver.destroy_vm(run.ctx(), run.subject_id)
    except NotFound:
        return {"was_gone": True}
    return {}


async def _gone(run: Run, intent: Record) -> Record | None:
    report = await report_of(run, await host_of(run, intent), run.subject_id)
    return {} if report is None else None


async def _down(run: Run, tx: FencedTx, _intent: Record, _outcome: Record) -> None:
    values = {
        "status": "down",
        "host_id": None,
        "stopped_at": func.now(),
        "stop_reason": f"stopped by {run.command.user_name}",
    }
    await update_row(tx, Vm, run.subject_id, values)


async def _shutdown(run: Run, intent: Record) -> Record:
    driver = await run.driver(await host_of(run, intent))
    try:
        await driver.shutdown_vm(run.ctx(), run.subject_id)
    except NotFound:
        return {"was_gone": True}
    return {}


async def _shutting_down(run: Run, intent: Record) -> Record | None:
    report = await report_of(run, await host_of(run, intent), run.subject_id)
    return {} if report is None or report.state in ("down", "powering_down") else None


async def _asked(_run: Run, _tx: FencedTx, _intent: Record, _outcome: Record) -> None:
    """The guest takes its time; monitoring sees the end."""


_VALIDATE: Final = WriteStep(
    name="validate",
    title="Validating",
    prepare=_hold_host,
    write=_powering_down,
    undo=_as_before,
    kind="validating",
)

DEFINITIONS: Final = (
    Definition(
        name="stop_vm",
        subject_kind="vm",
        describe=describing("Stopping VM {name}"),
        locks=subject("vm"),
        steps=(
            _VALIDATE,
            HostStep(
                name="destroy",
                title="Stopping the VM on the host",
                plan=_plan,
                act=_destroy,
                look=_gone,
                record=_down,
            ),
        ),
        unknown=unclear,
        event=told(33, "VM {name} was stopped by {user}.", 56, "Failed to stop VM {name}: {error}"),
    ),
    Definition(
        name="shutdown_vm",
        subject_kind="vm",
        describe=describing("Shutting down VM {name}"),
        locks=subject("vm"),
        steps=(
            _VALIDATE,
            HostStep(
                name="shutdown",
                title="Asking the guest to shut down",
                plan=_plan,
                act=_shutdown,
                look=_shutting_down,
                record=_asked,
            ),
        ),
        accept_after="validate",
        unknown=unclear,
        event=told(
            73,
            "Shutdown of VM {name} was requested by {user}.",
            74,
            "Failed to shut down VM {name}: {error}",
        ),
    ),
)
