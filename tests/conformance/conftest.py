"""Hosts to run the drivers against: real processes, and a way to put faults into them."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from engine_pg.clock import boottime
from engine_pg.hosts.domain import DomainSpec, domain_xml
from engine_pg.hosts.driver import HostDriver
from engine_pg.hosts.vdsm.client import VdsmDriver
from lab.enclosure import refusal

START_S = 20.0
WHY_NOT = refusal() if os.geteuid() == 0 else "only root may make namespaces"
collect_ignore = ["test_chaos_enclosure.py"] if WHY_NOT else []


def pytest_report_header() -> str:
    return f"network namespaces: {WHY_NOT or 'tested as well'}"


class HostUnderTest:
    """One host of one kind: how to reach it, and how to hurt it."""

    make: type[HostDriver]

    def __init__(self, process: subprocess.Popen, control: int, described: dict):
        self._process = process
        self._control = control
        self._number = described["number"]
        self.address = described["address"]
        self.port = described["port"]
        self.uuid = UUID(described["uuid"])

    def driver(self, **knobs) -> HostDriver:
        return self.make(self.address, self.port, **knobs)

    async def fault(self, name: str, **fields) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._control)
        request = {"host": self._number, "fault": name, **fields}
        writer.write(json.dumps(request).encode() + b"\n")
        answer = json.loads(await reader.readline())
        writer.close()
        await writer.wait_closed()
        assert answer["ok"], answer

    @contextmanager
    def frozen(self):
        """Stop the whole process: its connections stay, and nothing comes over them."""
        os.kill(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._process.pid, signal.SIGCONT)


class SimulatedVdsm(HostUnderTest):
    make = VdsmDriver


KINDS = {"vdsm": SimulatedVdsm}


@contextmanager
def simulated(kind: type[HostUnderTest], fencing: str):
    with tempfile.TemporaryDirectory(prefix="engine-pg-conformance-") as folder:
        ready = Path(folder, "ready.json")
        program = "from engine_pg.cli.host_sim import app; app()"
        options = {
            "--hosts": "1",
            "--base-port": "0",
            "--control-port": "0",
            "--fencing": fencing,
            "--launch-delay": "0.02",
            "--boot-delay": "0.05",
            "--shutdown-delay": "0.05",
            "--journal": str(Path(folder, "journal")),
            "--ready-file": str(ready),
        }
        words = [word for option in options.items() for word in option]
        with subprocess.Popen([sys.executable, "-c", program, *words]) as process:
            try:
                deadline = boottime() + START_S
                while not ready.exists():
                    assert process.poll() is None, "the simulated host did not start"
                    assert boottime() < deadline, "the simulated host did not get ready"
                    with pytest.raises(subprocess.TimeoutExpired):
                        process.wait(0.02)
                described = json.loads(ready.read_text())
                yield kind(process, described["control"], described["hosts"][0])
            finally:
                process.terminate()


@pytest.fixture(scope="session", params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture(scope="session")
def fencing_host(kind):
    with simulated(kind, "all") as host:
        yield host


@pytest.fixture(scope="session")
def trusting_host(kind):
    """A host that takes every call."""
    with simulated(kind, "none") as host:
        yield host


@pytest.fixture
def host(fencing_host):
    """A host that checks fencing tokens, whole again after each test."""
    yield fencing_host
    asyncio.run(fencing_host.fault("heal"))


@pytest.fixture
def spec():
    """A VM that nobody else knows."""
    return DomainSpec(vm_id=uuid4(), name="conformance", memory_bytes=256 * 2**20)


@pytest.fixture
def xml(spec):
    return domain_xml(spec)
