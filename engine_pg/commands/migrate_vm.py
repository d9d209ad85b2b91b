"""Move a running VM to another host, without a pause.

The source pushes the VM over by itself, whatever becomes of us. So the call is made once, and from
then on both hosts are asked until the VM runs on one of them alone; whoever adopts the command does
the same. A halt asks the source to keep it, and what came of that is seen in the same way: when it
has arrived, it has.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final
from uuid import UUID

from engine_pg.clock import boottime
from engine_pg.cluster.fence import FencedTx
from engine_pg.cluster.locks import LockBusy
from engine_pg.commands.definition import Definition, HostStep
from engine_pg.commands.parts import describing, note, shared, subject, told
from engine_pg.commands.run import Run
from engine_pg.commands.vmhost import host_of, placing, report_of, unclear
from engine_pg.db.tx import Record
from engine_pg.errors import Conflict, HostBusy, HostUnreachable, NotFound, OutcomeUnknown
from engine_pg.inventory.reads import get
from engine_pg.inventory.rows import Host, Vm
from engine_pg.inventory.writes import update_row
from engine_pg.scheduling.placement import candidates, reserve

MAINTENANCE: Final = "host.maintenance"
"""Held alone by whoever empties a host, and together by all who bring it something."""
_MOVABLE: Final = frozenset({"powering_up", "up", "paused"})
_POLL_S: Final = 0.2
_LONGEST_S: Final = 300.0


async def _choose(run: Run) -> None:
    """Hold the source, and the best other host that nobody is taking out of service."""
    pinned = run.params.get("host_id")
    async with run.db.read() as tx:
        vm = await get(tx, Vm, run.subject_id)
        note(run, vm)
        _check(vm)
        hosts = await candidates(tx, vm, UUID(pinned) if pinned else None)
    await run.lock(shared("host", vm.host_id), wait_s=5.0)
    for host_id in hosts:
        if host_id == vm.host_id:
            continue
        try:
            await run.lock(shared("host", host_id), shared(MAINTENANCE, host_id))
        except LockBusy:
            continue
        run.notes["host_id"] = host_id
        return
    raise Conflict(f"no other host that is up has room for VM {vm.name}")


def _check(vm: Vm) -> None:
    if vm.host_id is None or vm.status not in _MOVABLE:
        raise Conflict(f"VM {vm.name} is {vm.status}")


async def _place(run: Run, tx: FencedTx) -> Record:
    vm = await get(tx, Vm, run.subject_id)
    _check(vm)
    await reserve(tx, vm, run.notes["host_id"])  # from here on by this step's outcome
    await update_row(tx, Vm, vm.vm_id, {"status": "migrating"})
    return {"host_id": str(run.notes["host_id"]), "source_id": str(vm.host_id), "was": vm.status}


async def _unplace(run: Run, tx: FencedTx, outcome: Record) -> None:
    await update_row(tx, Vm, run.subject_id, {"status": outcome["was"]})


async def _plan(run: Run, tx: FencedTx) -> Record:
    note(run, await get(tx, Vm, run.subject_id))
    place = run.outcomes["place"]
    return {"host_id": place["source_id"], "destination_id": place["host_id"]}


async def _destination(run: Run, intent: Record) -> Host:
    async with run.db.read() as tx:
        return await get(tx, Host, UUID(intent["destination_id"]))


async def _migrate(run: Run, intent: Record) -> Record:
    source, destination = await host_of(run, intent), await _destination(run, intent)
    driver = await run.driver(source)
    address = f"{destination.address}:{destination.port}"
    await driver.migrate_vm(run.ctx(), run.subject_id, address)
    try:
        found = await _settled(run, intent)
    except (HostUnreachable, HostBusy) as error:  # it was begun, whatever we can ask now
        raise OutcomeUnknown(f"the migration goes on: {error}") from error
    if found is None:
        run.halt.check()
        raise Conflict(f"the VM could not be moved to host {destination.name}")
    return found


async def _settled(run: Run, intent: Record) -> Record | None:
    """Ask the source until the VM is no longer on its way; None: it is where it was."""
    source, destination = await host_of(run, intent), await _destination(run, intent)
    deadline = boottime() + _LONGEST_S
    while boottime() < deadline:
        here = await report_of(run, source, run.subject_id)
        if here is not None and here.state not in ("down", "migrating"):
            return None
        if here is None or here.state == "down":
            there = await report_of(run, destination, run.subject_id)
            if there is None or there.state == "down":
                raise Conflict("the VM runs on neither host")
            if there.state != "migrating":
                await _forgotten(run, source)
                return {"state": there.state}
        elif run.halt.reason is not None:
            await _kept(run, source)
        await asyncio.sleep(_POLL_S)
    raise OutcomeUnknown("the migration does not end")


async def _kept(run: Run, source: Host) -> None:
    with suppress(NotFound, Conflict):  # it is not on its way any more
        await (await run.driver(source)).cancel_migration(run.ctx(), run.subject_id)


async def _forgotten(run: Run, source: Host) -> None:
    with suppress(NotFound):
        await (await run.driver(source)).destroy_vm(run.ctx(), run.subject_id)


async def _moved(run: Run, tx: FencedTx, intent: Record, outcome: Record) -> None:
    values = {"status": outcome["state"], "host_id": UUID(intent["destination_id"])}
    await update_row(tx, Vm, run.subject_id, values)


DEFINITIONS: Final = (
    Definition(
        name="migrate_vm",
        subject_kind="vm",
        describe=describing("Migrating VM {name}"),
        locks=subject("vm"),
        lock_wait_s=5.0,
        steps=(
            placing(_choose, _place, _unplace),
            HostStep(
                name="migrate",
                title="Moving the VM",
                plan=_plan,
                act=_migrate,
                look=_settled,
                record=_moved,
                breaks_off=True,
            ),
        ),
        accept_after="place",
        unknown=unclear,
        event=told(
            63, "VM {name} was migrated by {user}.", 65, "Failed to migrate VM {name}: {error}"
        ),
    ),
)
