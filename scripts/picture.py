#!/usr/bin/env python
"""Takes docs/images/up.svg: what `engine-pg up` shows just after one of its nodes was killed.

    .venv/bin/python scripts/picture.py [FOLDER]

Everything on it is real: a stack is started in FOLDER (a new one unless given; the picture shows
its path), its VMs are stopped and started, and the busiest node dies.
"""

from __future__ import annotations

import asyncio
import io
import re
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from engine_pg.cli.view import render
from engine_pg.clock import boottime
from engine_pg.demo.furnish import furnish
from engine_pg.demo.rest import Client, element
from engine_pg.demo.stack import Options, Stack
from engine_pg.demo.state import StateFolder
from engine_pg.demo.target import Target
from engine_pg.errors import EngineError, Unavailable

PICTURE: Final = Path(__file__).resolve().parent.parent / "docs" / "images" / "up.svg"
WIDTH: Final = 118
HEIGHT: Final = 36
VMS: Final = 20
BUSY: Final = 10
_BOUND_S: Final = 30.0
_SLOW_S: Final = 1.5  # how long hosts take, so that there are locks to be seen
_REMOTE_FONT: Final = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)

Status = dict[str, Any]


async def until(client: Client, shows: Callable[[Status], bool]) -> Status:
    """Return the first status that shows something."""
    deadline = boottime() + _BOUND_S
    while not shows(status := await client.status()):
        if boottime() > deadline:
            raise Unavailable(f"what the picture needs did not happen within {_BOUND_S:g} s")
        await asyncio.sleep(0.05)
    return status


async def keep_busy(client: Client, vm_id: str, turn: int) -> None:
    """Stop a VM when it is up and start it when it is down, until cancelled."""
    actions = {"up": "stop", "down": "start"}
    while True:
        try:
            vm = await client.get(f"/vms/{vm_id}", first=turn)
            if action := actions.get(vm.findtext("status") or ""):
                await client.post(f"/vms/{vm_id}/{action}", element("action"), first=turn)
        except EngineError:  # its node died: the next look tells what came of it
            continue
        await asyncio.sleep(0.2)


def fading(status: Status, name: str) -> bool:
    """Return whether a node is back while its former life still waits to be ended."""
    ages = [n["age_s"] / n["ttl_s"] for n in status["nodes"] if n["node"] == name]
    return len(ages) > 1 and max(ages) > 1 / 2


async def taken(stack: Stack, said: deque[str]) -> Status:
    """Let things happen, and return what there was to be seen after a node's death."""
    target = Target(stack.state)
    async with stack.client() as client, asyncio.TaskGroup() as group:
        await furnish(client, host_ports=stack.host_ports, vms=VMS, tell=said.appendleft)
        await target.slow_down(_SLOW_S, hosts=len(stack.host_ports))
        vms = [vm.get("id") or "" for vm in await client.get("/vms")]
        working = [group.create_task(keep_busy(client, vms[n], n)) for n in range(BUSY)]
        status = await until(client, lambda seen: len(seen["locks"]) >= BUSY)
        busiest = max(status["nodes"], key=lambda node: node["commands"])["node"]
        said.clear()
        target.signal(busiest, signal.SIGKILL)
        status = await until(client, lambda seen: fading(seen, busiest))
        for each in working:
            each.cancel()
    return status


def drawn(stack: Stack, status: Status, said: deque[str]) -> str:
    """Return the view as SVG, with the reader's own font."""
    console = Console(
        record=True, width=WIDTH, height=HEIGHT, force_terminal=True, file=io.StringIO()
    )
    console.print(render(stack, status, said, height=HEIGHT), height=HEIGHT)
    return _REMOTE_FONT.sub("", console.export_svg(title="engine-pg up"))


async def main(folder: Path) -> None:
    """Take the picture."""
    said: deque[str] = deque(maxlen=4)
    async with Stack(StateFolder(folder), Options(), said.appendleft) as stack:
        status = await taken(stack, said)
        PICTURE.parent.mkdir(exist_ok=True)
        PICTURE.write_text(drawn(stack, status, said))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(main(Path(sys.argv[1])))
    else:
        with tempfile.TemporaryDirectory(prefix="engine-pg-") as new:
            Path(new).chmod(0o711)  # PostgreSQL's account must be able to enter
            asyncio.run(main(Path(new)))
