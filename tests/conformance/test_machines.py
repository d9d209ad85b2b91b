"""Machines that are network namespaces: who finds whom, and that a cut is silent.

The claims run in a process of their own, which is enclosed.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

from engine_pg.clock import boottime
from lab.enclosure import enclosed, refusal
from lab.machines import ELSEWHERE, Machines

ECHO = """
import socket, sys, threading
def attend(wire, peer):
    for line in wire.makefile():
        wire.sendall(f"{sys.argv[2]} {peer[0]} {line}".encode())
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("ready", flush=True)
while True:
    threading.Thread(target=attend, args=server.accept(), daemon=True).start()
"""
ASK = """
import socket, sys
wire = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
wire.sendall(b"hello\\n")
print(wire.makefile().readline(), end="")
"""
PORTS = {"one": 7001, "two": 7002, ELSEWHERE: 7003}
BOUND_S = 20.0  # far above what a retransmission after a cut takes
SILENCE_S = 0.7


async def started(machines: Machines, name: str) -> asyncio.subprocess.Process:
    program = (sys.executable, "-c", ECHO, f"{PORTS[name]}", name)
    command = (*machines.inside(name), *program)
    server = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert server.stdout
    assert await server.stdout.readline() == b"ready\n"
    return server


async def asked(machines: Machines, who: str, whom: str, bound_s: float = BOUND_S) -> str:
    command = (*machines.inside(who), sys.executable, "-c", ASK, f"{PORTS[whom]}")
    client = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(bound_s):
            said, _ = await client.communicate()
    except TimeoutError:
        client.kill()
        await client.wait()
        return "silence"
    return said.decode().strip()


async def everybody_is_found_at_a_port_of_127_0_0_1(machines: Machines) -> None:
    for who in PORTS:
        for whom in PORTS:
            assert await asked(machines, who, whom) == f"{whom} 127.0.0.1 hello"


async def a_cut_is_silent_both_ways_and_for_those_alone(machines: Machines) -> None:
    await machines.cut({"one"}, {"two"})
    assert await asked(machines, "one", "two", SILENCE_S) == "silence"
    assert await asked(machines, "two", "one", SILENCE_S) == "silence"
    assert await asked(machines, ELSEWHERE, "one") == "one 127.0.0.1 hello"
    assert await asked(machines, "two", ELSEWHERE) == "outside 127.0.0.1 hello"
    await machines.silence("two")
    assert await asked(machines, "two", ELSEWHERE, SILENCE_S) == "silence"
    assert await asked(machines, ELSEWHERE, "two", SILENCE_S) == "silence"


async def what_was_said_during_a_cut_arrives_when_it_is_over(machines: Machines) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", PORTS["one"])
    writer.write(b"before\n")
    assert await reader.readline() == b"one 127.0.0.1 before\n"
    await machines.silence("one")
    writer.write(b"during\n")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(SILENCE_S):
            await reader.readline()
    await machines.heal()
    began = boottime()
    assert await reader.readline() == b"one 127.0.0.1 during\n"
    assert boottime() - began < BOUND_S
    assert await asked(machines, "two", "one") == "one 127.0.0.1 hello"


async def prove() -> int:
    machines = Machines()
    for name in ("one", "two"):
        await machines.make(name, PORTS[name])
    for name in PORTS:
        await started(machines, name)
    for claim in CLAIMS:
        await claim(machines)
        sys.stdout.write(f"{claim.__name__}\n")
        await machines.heal()
    return 0


CLAIMS = (
    everybody_is_found_at_a_port_of_127_0_0_1,
    a_cut_is_silent_both_ways_and_for_those_alone,
    what_was_said_during_a_cut_arrives_when_it_is_over,
)


@pytest.fixture(scope="module")
def proven():
    """Return which claims held, and all that was said."""
    if why := refusal() if os.geteuid() == 0 else "only root may make namespaces":
        pytest.skip(why)
    run = subprocess.run(
        [sys.executable, __file__],
        check=False,
        timeout=100,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return run.stdout


@pytest.mark.parametrize("claim", [claim.__name__ for claim in CLAIMS])
def test_machines_do_what_they_say(claim, proven):
    assert claim in proven.splitlines(), proven


if __name__ == "__main__":
    sys.exit(enclosed(lambda: asyncio.run(prove())))
