"""Engines for tests: members with runners in this process, hosts in a real process of their own."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

from integration.nodes import LEASE, TestNode, eventually, node

from engine_pg.clock import boottime
from engine_pg.cluster.membership import Lease
from engine_pg.commands.definition import Definition, HostStep
from engine_pg.commands.registry import REGISTRY
from engine_pg.commands.rows import CommandView, Submission
from engine_pg.commands.run import Patience
from engine_pg.commands.runner import Runner
from engine_pg.commands.service import Commands
from engine_pg.db.listener import Doorbells
from engine_pg.hosts.connections import HostConnections
from engine_pg.hosts.vdsm.client import VdsmDriver
from engine_pg.ids import new_id
from engine_pg.simulator.judge import Verdict, judge
from engine_pg.supervisor import Background

INFLIGHT_S = 1.5


class Hosts:
    """The process of the simulated hosts, its journal, and how to hurt it."""

    def __init__(
        self, process: subprocess.Popen[bytes], folder: Path, ready: dict[str, Any], fencing: str
    ) -> None:
        self.process = process
        self.fencing = fencing
        self.journal = folder / "journal"
        self.control = ready["control"]
        self.places = [(each["address"], each["port"]) for each in ready["hosts"]]

    async def fault(self, number: int, name: str, **fields: object) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.control)
        writer.write(json.dumps({"host": number, "fault": name, **fields}).encode() + b"\n")
        answer = json.loads(await reader.readline())
        writer.close()
        await writer.wait_closed()
        assert answer["ok"], answer

    def records(self) -> Iterator[dict[str, Any]]:
        for line in self.journal.read_text().splitlines():
            yield json.loads(line)

    def verdict(self) -> Verdict:
        return judge(self.records())

    def kinds(self, kind: str, vm_id: UUID) -> int:
        return sum(r["kind"] == kind and r.get("vm") == str(vm_id) for r in self.records())


@contextmanager
def simulated(fencing: str, *, hosts: int = 2, migration_s: float = 0.1) -> Generator[Hosts]:
    with tempfile.TemporaryDirectory(prefix="engine-pg-hosts-") as name:
        folder = Path(name)
        ready = folder / "ready"
        options = {
            "--hosts": hosts,
            "--fencing": fencing,
            "--launch-delay": 0.02,
            "--boot-delay": 0.05,
            "--shutdown-delay": 0.05,
            "--migration-delay": migration_s,
            "--journal": folder / "journal",
            "--ready-file": ready,
        }
        words = [str(word) for option in options.items() for word in option]
        command = [sys.executable, "-m", "engine_pg", "host-sim", *words]
        with subprocess.Popen(command) as process:
            try:
                deadline = boottime() + 60
                while not ready.exists():
                    assert process.poll() is None
                    assert boottime() < deadline
                    time.sleep(0.02)
                yield Hosts(process, folder, json.loads(ready.read_text()), fencing)
            finally:
                process.send_signal(signal.SIGTERM)


class Crashing(VdsmDriver):
    """A driver whose node dies at a named point of a named verb: nothing after it happens."""

    point = ""

    async def _at(self, point: str) -> None:
        if self.point == point:
            type(self).point = ""
            died.set()
            await asyncio.Event().wait()

    async def create_vm(self, ctx, vm_id, xml):
        await self._at("before create")
        report = await super().create_vm(ctx, vm_id, xml)
        await self._at("after create")
        return report

    async def destroy_vm(self, ctx, vm_id):
        await self._at("before destroy")
        await super().destroy_vm(ctx, vm_id)
        await self._at("after destroy")


died = asyncio.Event()


def impatient(patience_s: float) -> dict[str, Definition]:
    """Return the commands with host steps that give up soon."""
    return {
        name: replace(
            definition,
            steps=tuple(
                replace(step, patience_s=patience_s) if isinstance(step, HostStep) else step
                for step in definition.steps
            ),
        )
        for name, definition in REGISTRY.items()
    }


class Engine:
    """A member that runs commands when it is told to."""

    def __init__(
        self,
        one: TestNode,
        hosts: HostConnections,
        patience_s: float,
        more: dict[str, Definition],
        **runner: Any,
    ) -> None:
        self.bells = bells = Doorbells(one.db.url)
        registry = impatient(patience_s) | more
        self.node = one
        self.commands = Commands(one.db, bells, registry)
        patience = Patience(host_call_s=1.0, host_inflight_s=INFLIGHT_S)
        self.runner = Runner(
            one.membership, one.db, hosts, bells, registry, patience=lambda: patience, **runner
        )

    async def submit(
        self, name: str, subject_id: UUID | None = None, /, **params: object
    ) -> Submission:
        subject = subject_id or new_id()
        submission = Submission(name=name, subject_id=subject, params=params, user_name="tester")
        await self.commands.submit(submission)
        return submission

    async def do(
        self, name: str, subject_id: UUID | None = None, /, **params: object
    ) -> CommandView:
        """Submit a command, run it here, and return how it ended."""
        submission = await self.submit(name, subject_id, **params)
        await self.runner.run(submission.command_id)
        return await self.view(submission.command_id)

    async def view(self, command_id: UUID) -> CommandView:
        return await self.commands.settled(command_id, until="final", bound_s=0)

    async def adopt(self, command_id: UUID) -> CommandView:
        """Run a command as soon as its runner was ended."""

        async def final():
            await self.runner.run(command_id)
            view = await self.view(command_id)
            return view if view.final else None

        return await eventually(final, 20)

    async def row(self, table: str, row_id: UUID) -> dict[str, Any]:
        queries = {
            "vm": "select * from vm where vm_id = %(id)s",
            "host": "select * from host where host_id = %(id)s",
        }
        return (await self.node.rows(queries[table], id=row_id))[0]

    async def furnish(
        self, hosts: Hosts, places: list[tuple[str, int]] | None = None
    ) -> tuple[UUID, list[UUID]]:
        """Make a data center, a cluster and the hosts; return the cluster and the hosts."""
        dc = await self.do("add_data_center", name=f"dc-{new_id()}")
        cluster = await self.do(
            "add_cluster", name=f"cluster-{new_id()}", data_center_id=str(dc.subject_id)
        )
        await self.node.db.statement("delete from vm")
        await self.node.db.statement("delete from host")
        made = [
            await self.do(
                "add_host",
                name=f"host-{number}",
                address=address,
                port=port,
                cluster_id=str(cluster.subject_id),
            )
            for number, (address, port) in enumerate(places or hosts.places, start=1)
        ]
        assert {view.state for view in made} == {"succeeded"}
        return cluster.subject_id, [view.subject_id for view in made]

    async def vm(self, cluster_id: UUID, **params: object) -> UUID:
        given = {"memory_bytes": 1 << 30} | params
        view = await self.do("add_vm", name=f"vm-{new_id()}", cluster_id=str(cluster_id), **given)
        assert view.state == "succeeded", view.error
        return view.subject_id


@asynccontextmanager
async def engine(
    url: str,
    name: str,
    *,
    driver: type[VdsmDriver] = VdsmDriver,
    patience_s: float = 5.0,
    more: dict[str, Definition] | None = None,
    lease: Lease = LEASE,
    **runner: Any,
) -> AsyncGenerator[Engine]:
    """Yield an engine; `more` are commands that it knows beside the product's."""
    async with (
        HostConnections(
            lambda address, port: driver(address, port, connect_timeout_s=1.0)
        ) as hosts,
        node(url, name, lease=lease) as one,
        Background() as background,
    ):
        made = Engine(one, hosts, patience_s, more or {}, **runner)
        background.start(made.bells.run(), name="bells")
        background.start(made.runner.watch(), name="halts")
        yield made
