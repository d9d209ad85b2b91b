"""Reconcile a VM with its host: what monitoring asks for when the two tell different stories.

The host is asked again under the VM's lock, so that nothing is changed on the strength of an old
report; a VM that ended there is forgotten there and down here.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final
from uuid import UUID

from sqlalchemy import func

from engine_pg.cluster.fence import FencedTx
from engine_pg.commands.definition import URGENT, Definition, HostStep, WriteStep
from engine_pg.commands.parts import describing, note, shared, subject
from engine_pg.commands.run import Run
from engine_pg.commands.vmhost import EXIT_TEXTS, host_of, report_of
from engine_pg.db.tx import Record
from engine_pg.errors import Conflict, EngineError, NotFound
from engine_pg.inventory.reads import get
from engine_pg.inventory.rows import Vm
from engine_pg.inventory.writes import NewEvent, update_row


def _where(run: Run, vm: Vm) -> UUID:
    """Return where the VM is by our books; if nowhere, where it was seen."""
    seen_at = run.params.get("host_id")
    if vm.host_id is None and seen_at is None:
        raise Conflict(f"VM {vm.name} runs nowhere")
    return vm.host_id or UUID(seen_at)


async def _hold_host(run: Run) -> None:
    async with run.db.read() as tx:
        vm = await get(tx, Vm, run.subject_id)
    note(run, vm)
    await run.lock(shared("host", _where(run, vm)), wait_s=5.0)


async def _validate(run: Run, tx: FencedTx) -> Record:
    vm = await get(tx, Vm, run.subject_id)
    return {"host_id": str(_where(run, vm)), "was": vm.status}


async def _plan(run: Run, tx: FencedTx) -> Record:
    note(run, await get(tx, Vm, run.subject_id))
    return {"host_id": run.outcomes["validate"]["host_id"]}


async def _reconcile(run: Run, intent: Record) -> Record:
    host = await host_of(run, intent)
    driver = await run.driver(host)
    report = await report_of(run, host, run.subject_id)
    was_unclear = run.outcomes["validate"]["was"] == "unknown"
    if report is None and was_unclear and driver.traits.fencing != "all":
        await asyncio.sleep(run.patience.host_inflight_s)  # its create may still be in the queue
        report = await report_of(run, host, run.subject_id)
    if report is None:
        return {"status": "down", "why": "gone from its host"}
    if report.state != "down":
        return {"status": report.state}
    with suppress(NotFound):
        await driver.destroy_vm(run.ctx(), run.subject_id)
    why = EXIT_TEXTS.get(report.exit_reason or 0) or report.exit_message or "ended"
    return {"status": "down", "why": why}


async def _look_again(_run: Run, _intent: Record) -> Record | None:
    return None  # the act itself begins with a look


async def _record(run: Run, tx: FencedTx, intent: Record, outcome: Record) -> None:
    values: dict[str, Any] = {"status": outcome["status"], "host_id": UUID(intent["host_id"])}
    if outcome["status"] == "down":
        values |= {"host_id": None, "stopped_at": func.now(), "stop_reason": outcome["why"]}
    await update_row(tx, Vm, run.subject_id, values)
    run.notes["why"] = outcome.get("why")


def _event(run: Run, error: EngineError | None) -> NewEvent | None:
    why = run.notes.get("why")
    if error is not None or why is None:
        return None
    return NewEvent(
        code=61,
        description=f"VM {run.notes.get('name', run.subject_id)} is down: {why}.",
        severity="normal" if "shut down" in why else "warning",
        correlation_id=run.command.correlation_id,
        command_id=run.command.command_id,
        **run.notes.get("about", {}),
    )


DEFINITIONS: Final = (
    Definition(
        name="reconcile_vm",
        subject_kind="vm",
        describe=describing("Reconciling VM {name} with its host"),
        locks=subject("vm"),
        steps=(
            WriteStep(
                name="validate",
                title="Validating",
                prepare=_hold_host,
                write=_validate,
                kind="validating",
            ),
            HostStep(
                name="reconcile",
                title="Asking the host",
                plan=_plan,
                act=_reconcile,
                look=_look_again,
                record=_record,
            ),
        ),
        event=_event,
        queue=URGENT,
    ),
)
