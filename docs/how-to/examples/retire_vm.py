"""A command of one's own: it stops a VM that runs, and marks it as retired, or does neither."""

from __future__ import annotations

from typing import Final

from engine_pg.cluster.fence import FencedTx
from engine_pg.commands.definition import Definition, HostStep, WriteStep
from engine_pg.commands.parts import describing, note, shared, subject, told
from engine_pg.commands.run import Run
from engine_pg.commands.vmhost import host_of, report_of, unclear
from engine_pg.db.tx import Record
from engine_pg.errors import Conflict, NotFound
from engine_pg.inventory.reads import get
from engine_pg.inventory.rows import Vm
from engine_pg.inventory.writes import update_row


async def hold_host(run: Run) -> None:
    """Before the transaction: what may wait. Nobody is to take the VM's host out of service."""
    async with run.db.read() as tx:
        vm = await get(tx, Vm, run.subject_id)
    note(run, vm)  # whom the event is about
    if vm.host_id is None:
        raise Conflict(f"VM {vm.name} does not run")
    await run.lock(shared("host", vm.host_id), wait_s=5.0)


async def mark(run: Run, tx: FencedTx) -> Record:
    """Effect and outcome are one transaction; the outcome is what its reversal needs."""
    vm = await get(tx, Vm, run.subject_id)
    await update_row(tx, Vm, vm.vm_id, {"description": "retired"})
    return {"was": vm.description, "host_id": str(vm.host_id)}


async def unmark(run: Run, tx: FencedTx, outcome: Record) -> None:
    """Reverse it, when a later step failed or the command was cancelled."""
    await update_row(tx, Vm, run.subject_id, {"description": outcome["was"]})


async def plan(run: Run, tx: FencedTx) -> Record:
    """Return the intent: all that somebody else needs who goes on after a crash."""
    note(run, await get(tx, Vm, run.subject_id))
    return {"host_id": run.outcomes["mark"]["host_id"]}


async def stop(run: Run, intent: Record) -> Record:
    """Call the host, with the tokens of all that the command holds."""
    driver = await run.driver(await host_of(run, intent))
    try:
        await driver.destroy_vm(run.ctx(), run.subject_id)
    except NotFound:
        return {"was_gone": True}
    return {}


async def stopped(run: Run, intent: Record) -> Record | None:
    """Ask the host whether it happened, before anything is repeated; None: it did not."""
    report = await report_of(run, await host_of(run, intent), run.subject_id)
    return {} if report is None else None


async def down(run: Run, tx: FencedTx, _intent: Record, _outcome: Record) -> None:
    """Write what it means, in the transaction of the outcome."""
    values = {"status": "down", "host_id": None, "stop_reason": "retired"}
    await update_row(tx, Vm, run.subject_id, values)


RETIRE_VM: Final = Definition(
    name="retire_vm",
    subject_kind="vm",
    describe=describing("Retiring VM {name}"),
    locks=subject("vm"),
    steps=(
        WriteStep(name="mark", title="Marking it", prepare=hold_host, write=mark, undo=unmark),
        HostStep(
            name="stop",
            title="Stopping it on its host",
            plan=plan,
            act=stop,
            look=stopped,
            record=down,
        ),
    ),
    unknown=unclear,
    event=told(9990, "VM {name} was retired by {user}.", 9991, "Failed to retire {name}: {error}"),
)
