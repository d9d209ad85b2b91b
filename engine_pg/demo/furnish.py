"""What there is to look at: a data center, a cluster, hosts and running VMs, made if missing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from engine_pg.clock import boottime
from engine_pg.demo.rest import Client, Element, element, named
from engine_pg.errors import Conflict, OutcomeUnknown, Unavailable

DATA_CENTER: Final = "Default"
CLUSTER: Final = "Default"
_VM_MEMORY_BYTES: Final = 1024**3
_AT_ONCE: Final = 8
_BOUND_S: Final = 90.0
_POLL_S: Final = 0.25
_STARTING: Final = ("wait_for_launch", "powering_up")


async def furnish(
    client: Client,
    *,
    host_ports: Sequence[int],
    vms: int,
    tell: Callable[[str], None],
    address: str = "127.0.0.1",
) -> None:
    """Make what is missing, wait for the hosts, start what is down, and wait for that."""
    local = element("local", "false")
    await _ensure(client, "datacenters", [element("data_center", _name(DATA_CENTER), local)])
    within = named("data_center", DATA_CENTER)
    await _ensure(client, "clusters", [element("cluster", _name(CLUSTER), within)])
    hosts = [_host(number, address, port) for number, port in enumerate(host_ports, 1)]
    made = await _ensure(client, "hosts", hosts)
    tell(f"hosts: {len(host_ports)}, {made} of them new")
    await _until(client, "hosts", lambda host: _text(host, "status") in ("up", "maintenance"))
    made = await _ensure(client, "vms", [_vm(number) for number in range(1, vms + 1)])
    tell(f"VMs: {vms}, {made} of them new")
    began = boottime()
    started = await _start_all(client)
    await _until(client, "vms", lambda vm: _text(vm, "status") not in _STARTING)
    tell(f"VMs: {started} started in {boottime() - began:.1f} s")


def _name(name: str) -> Element:
    return element("name", name)


def _host(number: int, address: str, port: int) -> Element:
    return element(
        "host",
        _name(f"host-{number}"),
        element("address", address),
        element("port", str(port)),
        named("cluster", CLUSTER),
        element("root_password", "simulated"),
    )


def _vm(number: int) -> Element:
    return element(
        "vm",
        _name(f"vm-{number:02}"),
        element("memory", str(_VM_MEMORY_BYTES)),
        named("cluster", CLUSTER),
        named("template", "Blank"),
    )


def _text(entity: Element, tag: str) -> str:
    return entity.findtext(tag) or ""


async def _ensure(client: Client, collection: str, wanted: Sequence[Element]) -> int:
    """Create the entities whose names are not there yet; return how many."""
    known = {_text(entity, "name") for entity in await client.get(f"/{collection}")}
    missing = [entity for entity in wanted if _text(entity, "name") not in known]
    room = asyncio.Semaphore(_AT_ONCE)

    async def create(turn: int, entity: Element) -> None:
        async with room:
            try:
                await client.post(f"/{collection}", entity, first=turn)
            except (Conflict, OutcomeUnknown):
                found = {_text(other, "name") for other in await client.get(f"/{collection}")}
                if _text(entity, "name") not in found:
                    raise

    async with asyncio.TaskGroup() as group:
        for turn, entity in enumerate(missing):
            group.create_task(create(turn, entity))
    return len(missing)


async def _start_all(client: Client) -> int:
    """Start the VMs that are down, each through the next node; return how many."""
    down = [vm for vm in await client.get("/vms") if _text(vm, "status") == "down"]
    room = asyncio.Semaphore(_AT_ONCE)

    async def start(turn: int, vm: Element) -> None:
        async with room:
            try:
                await client.post(f"/vms/{vm.get('id')}/start", element("action"), first=turn)
            except (Conflict, OutcomeUnknown):  # it is being started after all
                again = await client.get(f"/vms/{vm.get('id')}")
                if _text(again, "status") == "down":
                    raise

    async with asyncio.TaskGroup() as group:
        for turn, vm in enumerate(down):
            group.create_task(start(turn, vm))
    return len(down)


async def _until(client: Client, collection: str, settled: Callable[[Element], bool]) -> None:
    deadline = boottime() + _BOUND_S
    while not all(map(settled, found := list(await client.get(f"/{collection}")))):
        if boottime() > deadline:
            counts = Counter(_text(entity, "status") for entity in found if not settled(entity))
            waiting = ", ".join(f"{count} {status}" for status, count in counts.items())
            raise Unavailable(f"waited {_BOUND_S:g} s for the {collection}: {waiting}")
        await asyncio.sleep(_POLL_S)
