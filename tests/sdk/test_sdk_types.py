"""The tables of the wire against oVirt's own SDK: each reads what the other writes."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import pytest

from engine_pg.api.resources.catalog import RESOURCES
from engine_pg.api.types.cluster import CLUSTER
from engine_pg.api.types.data_center import DATA_CENTER
from engine_pg.api.types.empty import TOP, element_of
from engine_pg.api.types.event import EVENT
from engine_pg.api.types.host import HOST
from engine_pg.api.types.job import job, step
from engine_pg.api.types.statistic import statistic
from engine_pg.api.types.template import BLANK, TEMPLATE
from engine_pg.api.types.vm import VM
from engine_pg.api.wire import xml
from engine_pg.api.wire.shape import Element
from engine_pg.commands.rows import CommandView, StepView
from engine_pg.inventory.rows import Cluster, DataCenter, Event, Host, Vm

sdk = pytest.importorskip("ovirtsdk4", reason="needs ovirt-engine-sdk-python (see CONTRIBUTING)")
Reader = pytest.importorskip("ovirtsdk4.reader").Reader
Writer = pytest.importorskip("ovirtsdk4.writer").Writer
pytest.importorskip("ovirtsdk4.readers")
pytest.importorskip("ovirtsdk4.writers")

BASE = "/ovirt-engine/api"
NOW = datetime(2026, 11, 22, 6, 59, 21, 104_000, UTC)
RENAMED = {"transparent_hugepages": "transparent_huge_pages"}
SAMPLES = {
    "string": "stable",
    "integer": 7,
    "boolean": True,
    "enum": None,
    "date": NOW,
}


def example(element: Element):
    """Return a value that the element may hold and that is not its default."""
    return SAMPLES.get(element.kind.name)


def full(shape) -> dict[str, object]:
    """Return attributes that give each kept element a value."""
    found = {e.path: example(e) for e in shape.elements if e.kept}
    return {path: value for path, value in found.items() if value is not None} | SPECIAL


SPECIAL = {
    "migration/auto_converge": "true",
    "migration/compressed": "true",
    "migration/encrypted": "true",
    "bios_type": "q35_ovmf",
    "bios/type": "q35_ovmf",
    "quota_mode": "audit",
    "storage_format": "v4",
    "ssh/authentication_method": "publickey",
    "fips_mode": "enabled",
    "firewall_type": "iptables",
    "log_max_memory_used_threshold_type": "absolute_value_in_mb",
    "switch_type": "ovs",
    "serial_number/policy": "custom",
    "migration/bandwidth/assignment_method": "custom",
    "error_handling/on_error": "do_not_migrate",
    "required_rng_sources": ["hwrng", "random"],
    "custom_scheduling_policy_properties": [{"name": "a", "value": "b"}],
    "vgpu_placement": "separated",
    "cpu/architecture": "ppc64",
    "cpu/mode": "host_passthrough",
    "cpu_pinning_policy": "dedicated",
    "custom_properties": [{"name": "a", "value": "b", "regexp": "c"}],
    "display/disconnect_action": "LOGOUT",
    "display/type": "spice",
    "numa_tune_mode": "strict",
    "os/boot/devices": ["network", "cdrom"],
    "placement_policy/affinity": "pinned",
    "placement_policy/hosts": [{"id": str(uuid4())}],
    "rng_device/source": "hwrng",
    "sso/methods": [{"id": "guest_agent"}],
    "storage_error_resume_behaviour": "kill",
    "usb/type": "native",
    "version/major": 4,
    "version/minor": 6,
}
ROWS = [
    (
        DATA_CENTER,
        DataCenter(data_center_id=uuid4(), name="dc", local=True, attrs=full(DATA_CENTER)),
        "datacenters",
    ),
    (
        CLUSTER,
        Cluster(
            cluster_id=uuid4(),
            data_center_id=uuid4(),
            name="c",
            cpu_type="Intel Nehalem Family",
            attrs=full(CLUSTER),
        ),
        "clusters",
    ),
    (
        HOST,
        Host(
            host_id=uuid4(),
            cluster_id=uuid4(),
            name="h",
            address="10.0.0.1",
            status="up",
            status_detail="x",
            cpu_sockets=2,
            cpu_cores=4,
            cpu_threads=1,
            cpu_model="Model",
            memory_bytes=1 << 34,
            software_version="4.5",
            attrs=full(HOST),
        ),
        "hosts",
    ),
    (
        VM,
        Vm(
            vm_id=uuid4(),
            cluster_id=uuid4(),
            name="v",
            status="powering_up",
            host_id=uuid4(),
            created_at=NOW,
            started_at=NOW,
            stopped_at=NOW,
            stop_reason="because",
            attrs=full(VM),
        ),
        "vms",
    ),
    (TEMPLATE, BLANK, "templates"),
    (
        EVENT,
        Event(
            event_id=17,
            code=32,
            severity="warning",
            at=NOW,
            description='<VM> started & "quoted"',
            correlation_id="c",
            vm_id=uuid4(),
            vm_name="v",
            host_id=uuid4(),
            host_name="h",
            cluster_id=uuid4(),
            cluster_name="c",
            data_center_id=uuid4(),
            data_center_name="dc",
        ),
        "events",
    ),
]
EACH = pytest.mark.parametrize(("shape", "row", "path"), ROWS, ids=[row[0].one for row in ROWS])


def at(thing, path: str):
    """Return what the SDK's object has at a path of elements."""
    for name in path.split("/"):
        thing = getattr(thing, RENAMED.get(name, name))
        assert thing is not None, f"the SDK does not read {path}"
    return thing


def plain(value):
    """Return an SDK value in the form of our tables."""
    if isinstance(value, list):
        return [plain(each) for each in value]
    return getattr(value, "value", value) if type(value).__module__ == "ovirtsdk4.types" else value


def same(element: Element, expected, value) -> bool:
    if element.kind.name == "reference":
        return value.id == str(expected[0] if isinstance(expected, tuple) else expected)
    if element.kind.name == "many" and isinstance(expected[0], dict):
        parts = [{key: plain(getattr(one, key)) for key in expected[0]} for one in value]
        return parts == expected
    return plain(value) == expected


@EACH
def test_the_sdk_reads_every_element_that_we_write(shape, row, path):
    written = xml.written(shape.one, shape.document(row, BASE, path))
    thing = Reader.read(written)
    assert thing.id == str(getattr(row, shape.id_column))
    assert thing.href == f"{BASE}/{path}/{thing.id}"
    checked = 0
    for element in shape.elements:
        expected = element.source(row) if element.source else None
        if expected is None:
            continue
        assert same(element, expected, at(thing, element.path)), element.path
        checked += 1
    assert checked >= 10


@EACH
def test_the_sdk_finds_what_we_link_to(shape, row, path):
    thing = Reader.read(xml.written(shape.one, shape.document(row, BASE, path)))
    lists = [value for value in vars(thing).values() if isinstance(value, sdk.List)]
    assert {f"{thing.href}/{rel}" for rel in shape.links} <= {one.href for one in lists}


@EACH
def test_we_read_every_element_that_the_sdk_writes(shape, row, path):
    ours = shape.document(row, BASE, path)
    theirs = Writer.write(Reader.read(xml.written(shape.one, ours)))
    name, document = xml.read(theirs.encode() if isinstance(theirs, str) else theirs)
    assert name == shape.one
    assert shape.form(document) == shape.form(xml.read(xml.written(shape.one, ours))[1])


@pytest.mark.parametrize("path", [*RESOURCES, "templates"])
def test_the_sdk_reads_every_empty_collection(path):
    shape = RESOURCES[path].shape if path in RESOURCES else TEMPLATE
    for rel in shape.links:
        assert Reader.read(xml.written(element_of(path, rel), {})) == [], rel


@pytest.mark.parametrize("element", TOP.values())
def test_the_sdk_reads_what_the_engine_has_nothing_of(element):
    assert Reader.read(xml.written(element, {})) == []


def view(**changes) -> CommandView:
    first = StepView(
        number=1, name="n", title="Choosing a host", kind="validating", state="finished",
        attempt=1, intent=None, outcome=None, error=None, started_at=NOW, ended_at=NOW,
    )  # fmt: skip
    values = {
        "command_id": uuid4(), "name": "start_vm", "description": "Starting VM a", "params": {},
        "subject_kind": "vm", "subject_id": uuid4(), "user_name": "admin", "correlation_id": "c",
        "state": "succeeded", "member_id": None, "attempt": 1, "error_kind": None, "error": None,
        "submitted_at": NOW, "started_at": NOW, "accepted_at": NOW, "ended_at": NOW,
        "steps": (first,),
    }  # fmt: skip
    return CommandView(**values | changes)


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("queued", "started"),
        ("running", "started"),
        ("succeeded", "finished"),
        ("failed", "failed"),
        ("unknown", "unknown"),
    ],
)
def test_the_sdk_reads_jobs(state, status):
    command = view(state=state)
    owner = uuid4()
    read = Reader.read(xml.written("job", job(command, BASE, owner)))
    assert (read.id, read.status.value) == (str(command.command_id), status)
    assert (read.start_time, read.end_time, read.last_updated) == (NOW, NOW, NOW)
    assert (read.external, read.auto_cleared, read.owner.id) == (False, True, str(owner))
    assert read.steps.href == f"{read.href}/steps"


def test_the_sdk_reads_steps():
    command = view()
    read = Reader.read(xml.written("step", step(command, command.steps[0], BASE)))
    assert (read.type.value, read.status.value, read.number) == ("validating", "finished", 1)
    assert (read.job.id, read.start_time, read.end_time) == (str(command.command_id), NOW, NOW)


def test_the_sdk_reads_statistics():
    owner = uuid4()
    document = statistic(BASE, ("host", "hosts", owner), "cpu", "CPU", "percent", 12.5)
    read = Reader.read(xml.written("statistic", document))
    assert (read.name, read.kind.value, read.unit.value) == ("cpu", "gauge", "percent")
    assert (read.type.value, read.values[0].datum) == ("decimal", 12.5)
    assert read.host.id == str(owner)
