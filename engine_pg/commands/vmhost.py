"""A VM and its host, as the commands about VMs see them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final
from uuid import UUID

from engine_pg.cluster.fence import FencedTx
from engine_pg.commands.definition import WriteStep
from engine_pg.commands.run import Run
from engine_pg.db.tx import Record
from engine_pg.hosts.driver import VmReport
from engine_pg.inventory.reads import get
from engine_pg.inventory.rows import Host, Vm
from engine_pg.inventory.writes import update_row

EXIT_TEXTS: Final = {
    1: "stopped by an error",
    2: "the hypervisor process was lost",
    3: "failed to start",
    6: "stopped by an administrator",
    7: "shut down by its user",
    9: "gone from its host",
    11: "its host was shut down",
}


async def host_of(run: Run, intent: Record) -> Host:
    """Return the host that an intent names."""
    async with run.db.read() as tx:
        return await get(tx, Host, UUID(intent["host_id"]))


async def report_of(run: Run, host: Host, vm_id: UUID) -> VmReport | None:
    """Ask a host about one VM, under the command's tokens; None: it knows no such VM."""
    driver = await run.driver(host)
    reports = await driver.list_vms(run.ctx())
    return next((report for report in reports if report.vm_id == vm_id), None)


def placing(
    choose: Callable[[Run], Awaitable[None]],
    place: Callable[[Run, FencedTx], Awaitable[Record]],
    unplace: Callable[[Run, FencedTx, Record], Awaitable[None]],
) -> WriteStep:
    """Make the step that reserves a place for a VM, and gives it back."""
    return WriteStep(
        name="place",
        title="Choosing a host",
        prepare=choose,
        write=place,
        undo=unplace,
        kind="validating",
    )


async def unclear(run: Run, tx: FencedTx) -> None:
    """Write that nobody knows what came of a call about the VM: monitoring finds out."""
    await update_row(tx, Vm, run.subject_id, {"status": "unknown"})
