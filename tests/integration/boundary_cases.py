"""Each command of the product with what it needs, and what is right when it has ended once."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from integration.engines import Engine, Hosts
from integration.nodes import eventually

from engine_pg.commands.boundaries import Boundary, backward, forward
from engine_pg.commands.definition import HostStep
from engine_pg.commands.registry import REGISTRY
from engine_pg.commands.rows import CommandView, Submission
from engine_pg.ids import new_id

HOWS = ("killed", "frozen", "partitioned")


@dataclass(frozen=True, slots=True)
class Case:
    """Where a node dies, how, and the step that fails before (none: the command succeeds)."""

    at: Boundary
    how: str
    fails: str = ""

    def __str__(self) -> str:
        return "-".join(
            filter(None, [str(self.at), self.how, self.fails and f"{self.fails} fails"])
        )


def cases() -> Iterator[Case]:
    """Yield a case for every boundary of every command, and each way to die."""
    for definition in REGISTRY.values():
        for at, how in itertools.product(forward(definition), HOWS):
            yield Case(at, how)
        for step in definition.steps:
            if isinstance(step, HostStep) and step.undo is not None:
                for at, how in itertools.product(backward(definition, step), HOWS):
                    yield Case(at, how, step.name)


@dataclass
class Stage:
    """An inventory of its own for one case."""

    a: Engine
    hosts: Hosts
    params: dict[str, Any] = field(default_factory=dict)
    subject: UUID = field(default_factory=new_id)
    cluster: UUID = field(default_factory=new_id)
    was: UUID | None = None  # where the VM ran
    vm: UUID | None = None  # what ran on the host

    async def set(self, command: str) -> Submission:
        """Have everything there that a command needs, and return the command to submit."""
        places = self.hosts.places[:1] if command == "add_host" else self.hosts.places
        self.cluster, known = await self.a.furnish(self.hosts, places)
        await getattr(self, command)(known)
        return Submission(
            name=command, subject_id=self.subject, params=self.params, user_name="tester"
        )

    async def add_data_center(self, _known) -> None:
        self.params = {"name": f"dc-{self.subject}"}

    async def update_data_center(self, known) -> None:
        await self.remove_data_center(known)
        self.params = {"description": "new"}

    async def remove_data_center(self, _known) -> None:
        self.subject = (await self.a.do("add_data_center", name=f"dc-{new_id()}")).subject_id

    async def add_cluster(self, _known) -> None:
        dc = await self.a.do("add_data_center", name=f"dc-{new_id()}")
        self.params = {"name": f"c-{self.subject}", "data_center_id": str(dc.subject_id)}

    async def update_cluster(self, _known) -> None:
        self.subject, self.params = self.cluster, {"description": "new"}

    async def remove_cluster(self, known) -> None:
        await self.add_cluster(known)
        self.subject = (await self.a.do("add_cluster", **self.params)).subject_id
        self.params = {}

    async def add_host(self, _known) -> None:
        address, port = self.hosts.places[1]
        self.params = {"name": "spare", "address": address, "port": port}
        self.params["cluster_id"] = str(self.cluster)

    async def update_host(self, known) -> None:
        self.subject, self.params = known[0], {"description": "new"}

    async def deactivate_host(self, known) -> None:
        await self.stop_vm(known)
        self.vm = self.subject
        self.subject = (await self.row())["host_id"]

    async def migrate_vm(self, known) -> None:
        await self.stop_vm(known)
        self.was = (await self.row())["host_id"]

    async def activate_host(self, known) -> None:
        self.subject = known[0]
        assert (await self.a.do("deactivate_host", self.subject)).state == "succeeded"

    async def remove_host(self, known) -> None:
        await self.activate_host(known)

    async def add_vm(self, _known) -> None:
        self.params = {"name": f"vm-{self.subject}", "cluster_id": str(self.cluster)}
        self.params["memory_bytes"] = 1 << 30

    async def update_vm(self, _known) -> None:
        self.subject, self.params = await self.a.vm(self.cluster), {"description": "new"}

    async def remove_vm(self, _known) -> None:
        self.subject = await self.a.vm(self.cluster)

    async def start_vm(self, _known) -> None:
        self.subject = await self.a.vm(self.cluster)

    async def stop_vm(self, known) -> None:
        await self.start_vm(known)
        assert (await self.a.do("start_vm", self.subject)).state == "succeeded"

    async def shutdown_vm(self, known) -> None:
        await self.stop_vm(known)

    async def reconcile_vm(self, known) -> None:
        await self.stop_vm(known)

    async def check(self, command: str, view: CommandView, *, failed: bool) -> None:
        """Look at the inventory and at what the hosts have done: once, and no more."""
        if failed:
            assert view.state == "failed", view.error
            assert view.error == "it is to fail"
        else:
            assert view.state == "succeeded", view.error
        await _CHECKS.get(command, _nothing)(self, failed)

    async def row(self) -> dict[str, Any] | None:
        """Return the subject as it is in the inventory."""
        kinds = ("data_center", "cluster", "host", "vm")
        found = [
            row for kind in kinds for row in await self.a.node.rows(_ROWS[kind], id=self.subject)
        ]
        return found[0] if found else None

    def count(self, kind: str) -> int:
        """Return how often something was done to the VM at the hosts."""
        return self.hosts.kinds(kind, self.subject)


_ROWS = {
    "data_center": "select * from data_center where data_center_id = %(id)s",
    "cluster": "select * from cluster where cluster_id = %(id)s",
    "host": "select * from host where host_id = %(id)s",
    "vm": "select * from vm where vm_id = %(id)s",
}


async def _nothing(stage: Stage, _failed: bool) -> None:
    raise AssertionError(f"nobody says what is right when {stage} has ended")


async def _there(stage: Stage, _failed: bool) -> None:
    assert await stage.row() is not None


async def _gone(stage: Stage, _failed: bool) -> None:
    assert await stage.row() is None


async def _changed(stage: Stage, _failed: bool) -> None:
    assert (await stage.row())["description"] == "new"


def _is(status: str) -> Callable[[Stage, bool], Awaitable[None]]:
    async def check(stage: Stage, _failed: bool) -> None:
        assert (await stage.row())["status"] == status

    return check


async def _started(stage: Stage, failed: bool) -> None:
    row = await stage.row()
    assert (row["status"] == "down") == (row["host_id"] is None) == failed
    assert stage.count("vm_started") == 1
    assert stage.count("vm_stopped") == failed


async def _stopped(stage: Stage, _failed: bool) -> None:
    row = await stage.row()
    assert (row["status"], row["host_id"]) == ("down", None)
    assert stage.count("vm_started") == stage.count("vm_stopped") == 1


async def _shut_down(stage: Stage, _failed: bool) -> None:
    async def down() -> bool:
        return stage.count("vm_stopped") == 1

    await eventually(down)
    asked = [
        each
        for each in stage.hosts.records()
        if each["kind"] == "vm_moved" and each.get("status") == "PoweringDown"
    ]
    assert sum(each["vm"] == str(stage.subject) for each in asked) == 1


async def _as_it_is(stage: Stage, _failed: bool) -> None:
    assert (await stage.row())["host_id"] is not None
    assert (stage.count("vm_started"), stage.count("vm_stopped")) == (1, 0)


async def _migrated(stage: Stage, _failed: bool) -> None:
    row = await stage.row()
    assert row["host_id"] not in (None, stage.was)
    assert row["status"] in ("powering_up", "up")
    assert (stage.count("vm_started"), stage.count("vm_incoming")) == (2, 1)
    assert (stage.count("vm_stopped"), stage.count("vm_forgotten")) == (1, 1)


async def _emptied(stage: Stage, failed: bool) -> None:
    await _is("maintenance")(stage, failed)
    host, stage.was, stage.subject = stage.subject, stage.subject, stage.vm
    await _migrated(stage, failed)
    stage.subject = host


_CHECKS: dict[str, Callable[[Stage, bool], Awaitable[None]]] = {
    **{f"add_{kind}": _there for kind in ("data_center", "cluster", "vm")},
    **{f"update_{kind}": _changed for kind in _ROWS},
    **{f"remove_{kind}": _gone for kind in _ROWS},
    "add_host": _is("up"),
    "activate_host": _is("up"),
    "deactivate_host": _emptied,
    "migrate_vm": _migrated,
    "start_vm": _started,
    "stop_vm": _stopped,
    "shutdown_vm": _shut_down,
    "reconcile_vm": _as_it_is,
}
