"""Add, update, activate, deactivate and remove a host."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from engine_pg.cluster.fence import FencedTx
from engine_pg.cluster.locks import Wanted
from engine_pg.commands.definition import Definition, HostStep, WriteStep
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
from engine_pg.errors import Conflict, EngineError
from engine_pg.hosts.driver import Capabilities
from engine_pg.inventory.reads import get
from engine_pg.inventory.rows import Cluster, Host
from engine_pg.inventory.writes import delete_row, insert_row, update_row

_REMOVABLE: Final = frozenset({"maintenance", "install_failed", "error"})
_ACTIVE: Final = frozenset({"up", "connecting", "unassigned"})


def _locks(command: CommandView) -> list[Wanted]:
    return [*named("host")(command), shared("cluster", command.params["cluster_id"])]


async def _insert(run: Run, tx: FencedTx) -> Record:
    await get(tx, Cluster, UUID(run.params["cluster_id"]))
    row = Host(host_id=run.subject_id, status="installing", **given(Host, run.params))
    note(run, row)
    await insert_row(tx, row)
    return {}


async def _unassign(run: Run, tx: FencedTx) -> Record:
    row = await get(tx, Host, run.subject_id)
    note(run, row)
    if row.status in _ACTIVE:
        raise Conflict(f"host {row.name} is {row.status} already")
    await update_row(tx, Host, row.host_id, {"status": "unassigned", "status_detail": ""})
    return {"was": row.status}


async def _plan(run: Run, tx: FencedTx) -> Record:
    note(run, await get(tx, Host, run.subject_id))
    return {"host_id": str(run.subject_id)}


async def _detect(run: Run, _intent: Record) -> Record:
    """Ask the host what it is: reading changes nothing there, so it may be repeated at will."""
    async with run.db.read() as tx:
        host = await get(tx, Host, run.subject_id)
    note(run, host)
    driver = await run.driver(host)
    found: Capabilities = await driver.capabilities(run.ctx())
    return {
        "hardware_id": str(found.identity.host_uuid),
        "boot_id": found.identity.boot_id,
        "fencing": found.identity.traits.fencing,
        "cpu_sockets": found.cpu_sockets,
        "cpu_cores": found.cpu_cores,
        "cpu_threads": found.cpu_threads,
        "cpu_model": found.cpu_model,
        "memory_bytes": found.memory_bytes,
        "software_version": found.version,
    }


async def _nothing_to_see(_run: Run, _intent: Record) -> Record | None:
    return None


async def _record(run: Run, tx: FencedTx, _intent: Record, found: Record) -> None:
    values: dict[str, Any] = dict(found) | {"hardware_id": UUID(found["hardware_id"])}
    values["status"] = "up" if run.params.get("activate", True) else "maintenance"
    values["status_detail"] = ""
    await update_row(tx, Host, run.subject_id, values)


def _detecting(status_after_failure: str) -> HostStep:
    async def failed(run: Run, tx: FencedTx, error: EngineError) -> None:
        values = {"status": status_after_failure, "status_detail": str(error)[:500]}
        await update_row(tx, Host, run.subject_id, values)

    return HostStep(
        name="detect",
        title="Detecting the host",
        plan=_plan,
        act=_detect,
        look=_nothing_to_see,
        record=_record,
        failed=failed,
        changes_host=False,
        patience_s=15.0,
    )


async def _delete(run: Run, tx: FencedTx) -> Record:
    row = await get(tx, Host, run.subject_id)
    note(run, row)
    if row.status not in _REMOVABLE:
        raise Conflict(f"host {row.name} is {row.status}; put it into maintenance first")
    await delete_row(tx, Host, row.host_id)
    return {"name": row.name}


DEFINITIONS: Final = (
    Definition(
        name="add_host",
        subject_kind="host",
        describe=describing("Adding host {name}"),
        locks=_locks,
        lock_wait_s=2.0,
        steps=(
            WriteStep(name="insert", title="Adding the host", write=_insert),
            _detecting("install_failed"),
        ),
        accept_after="insert",
        event=told(
            42, "Host {name} was added by {user}.", 10, "Failed to add host {name}: {error}"
        ),
    ),
    Definition(
        name="update_host",
        subject_kind="host",
        describe=describing("Updating host {name}"),
        locks=named("host"),
        steps=(updating(Host, "Updating the host"),),
        event=told(
            43, "Host {name} was updated by {user}.", 9, "Failed to update host {name}: {error}"
        ),
    ),
    Definition(
        name="activate_host",
        subject_kind="host",
        describe=describing("Activating host {name}"),
        locks=subject("host"),
        lock_wait_s=5.0,
        steps=(
            WriteStep(name="unassign", title="Validating", write=_unassign, kind="validating"),
            _detecting("non_responsive"),
        ),
        accept_after="unassign",
        event=told(
            16,
            "Host {name} was activated by {user}.",
            17,
            "Failed to activate host {name}: {error}",
        ),
    ),
    Definition(
        name="remove_host",
        subject_kind="host",
        describe=describing("Removing host {name}"),
        locks=subject("host"),
        lock_wait_s=2.0,
        steps=(WriteStep(name="delete", title="Removing the host", write=_delete),),
        event=told(
            44, "Host {name} was removed by {user}.", 14, "Failed to remove host {name}: {error}"
        ),
    ),
)
