"""`engine-pg host-sim`: simulated hosts, faults put into them, and the verdict on their journal."""

from __future__ import annotations

import asyncio
import json
import socket
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer
from rich.console import Console

from engine_pg.errors import HostUnreachable, Invalid
from engine_pg.simulator.control import FaultName
from engine_pg.simulator.faults import When
from engine_pg.simulator.journal import Journal, Reader
from engine_pg.simulator.judge import Verdict, judge
from engine_pg.simulator.machine import Timing
from engine_pg.simulator.server import LOOPBACK, Options, serve

app = typer.Typer(help="Simulated hosts, and the judge of what was done to them.")

_ADDRESS = "HOST:PORT"
_ANSWER_S = 10.0


@app.callback(invoke_without_command=True)
def host_sim(
    ctx: typer.Context,
    hosts: Annotated[int, typer.Option(min=1, max=1000, help="How many hosts.")] = 1,
    address: Annotated[str, typer.Option(help="Where they listen.")] = LOOPBACK,
    base_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of host 1; each next host takes the next.")
    ] = 0,
    control_port: Annotated[int, typer.Option(min=0, max=65535, help="Where faults come in.")] = 0,
    control_address: Annotated[
        str, typer.Option(help="Where the control port listens: who reaches it may break hosts.")
    ] = LOOPBACK,
    journal: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Journal and memory; none: forget all.")
    ] = None,
    ready_file: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Written when all hosts listen.")
    ] = None,
    fencing: Annotated[
        Literal["all", "none"], typer.Option(help="Refuse stale tokens, or be as a real VDSM.")
    ] = "all",
    memory_gib: Annotated[int, typer.Option(min=1, max=65536)] = 64,
    cpus: Annotated[int, typer.Option(min=1, max=4096)] = 16,
    launch_delay: Annotated[float, typer.Option(min=0, help="Seconds until powering up.")] = 0.1,
    boot_delay: Annotated[float, typer.Option(min=0, help="Seconds until up.")] = 0.3,
    shutdown_delay: Annotated[float, typer.Option(min=0, help="Seconds until down.")] = 0.3,
    work_delay: Annotated[
        float, typer.Option(min=0, help="Seconds that a changing call keeps its worker.")
    ] = 0.01,
    migration_delay: Annotated[float, typer.Option(min=0, help="Seconds of a migration.")] = 0.3,
) -> None:
    """Serve simulated hosts until SIGTERM or SIGINT."""
    if ctx.invoked_subcommand is not None:
        return
    if base_port and base_port + hosts - 1 > 65535:
        raise typer.BadParameter(f"{hosts} hosts do not fit above port {base_port}.")
    options = Options(
        hosts=hosts,
        address=address,
        base_port=base_port,
        control_port=control_port,
        control_address=control_address,
        ready_file=ready_file,
        fencing=fencing,
        memory_gib=memory_gib,
        cpus=cpus,
        timing=Timing(launch_delay, boot_delay, shutdown_delay, work_delay, migration_delay),
    )

    def tell(description: dict[str, Any]) -> None:
        _tell(description, control_address)

    with _open_journal(journal) as opened:
        asyncio.run(serve(options, opened, tell))


@app.command()
def inject(
    control: Annotated[str, typer.Option(metavar=_ADDRESS, help="The control port.")],
    host: Annotated[int, typer.Option(min=1, help="Number of the host.")],
    fault: Annotated[FaultName, typer.Option()],
    verb: Annotated[list[str] | None, typer.Option(help="Which calls; all without.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0)] = None,
    vm: Annotated[str | None, typer.Option(help="Id of the VM.")] = None,
    when: Annotated[When, typer.Option(help="Before the call acts, or after.")] = "before",
) -> None:
    """Put a fault into a running host, or take all of them out (heal)."""
    request = {"host": host, "fault": fault, "when": when}
    chosen = {"verbs": verb or None, "seconds": seconds, "vm": vm}
    request |= {name: value for name, value in chosen.items() if value is not None}
    _ask(control, request)


@app.command()
def verify(
    journal: Annotated[Path, typer.Argument(help="A journal, whole; its process may still run.")],
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Judge a journal: exit status 1 tells of a violation, 2 that it cannot be judged."""
    try:
        with journal.open("rb") as lines:
            reader = Reader(lines)
            verdict = judge(reader)
    except OSError as error:
        raise Invalid(f"The journal {journal} cannot be read: {error.strerror}.") from error
    if not verdict.counts:
        raise Invalid(f"The journal {journal} is empty.")
    if as_json:
        violations = [asdict(violation) for violation in verdict.violations]
        data = {"counts": verdict.counts, "violations": violations, "torn": reader.torn}
        Console().print_json(data=data)
    else:
        _print_verdict(verdict, torn=reader.torn)
    raise typer.Exit(0 if verdict.clean else 1)


@app.command()
def status(
    control: Annotated[str, typer.Option(metavar=_ADDRESS, help="The control port.")],
) -> None:
    """Show what goes on in each host, as JSON."""
    Console().print_json(data=_ask(control, {"status": True})["hosts"])


def _open_journal(path: Path | None) -> Journal:
    try:
        return Journal(path)
    except OSError as error:
        raise Invalid(f"The journal {path} cannot be written: {error.strerror}.") from error


def _tell(description: dict[str, Any], control_address: str) -> None:
    console = Console(highlight=False)
    for host in description["hosts"]:
        console.print(f"host {host['number']}: {host['address']}:{host['port']} {host['uuid']}")
    console.print(f"control: {control_address}:{description['control']}")


def _print_verdict(verdict: Verdict, *, torn: bool) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    for name, count in sorted(verdict.counts.items()):
        console.print(f"{count:>9} {name.replace('_', ' ')}")
    if torn:
        console.print("The last line is unfinished and was left out.")
    for violation in verdict.violations:
        console.print(f"{violation.kind.upper()}: {violation.what}")
        for record in violation.records:
            console.print(f"    {json.dumps(record)}")
    count = len(verdict.violations)
    console.print("No violation." if verdict.clean else f"{count} violation{'s' * (count > 1)}.")


def _ask(control: str, request: dict[str, Any]) -> dict[str, Any]:
    name, _, port = control.rpartition(":")
    if not (name and port.isdigit()):
        raise typer.BadParameter(f"Not {_ADDRESS}: {control}.")
    try:
        with socket.create_connection((name.strip("[]"), int(port)), _ANSWER_S) as connection:
            connection.sendall(json.dumps(request).encode() + b"\n")
            answer = cast("dict[str, Any]", json.loads(connection.makefile("rb").readline()))
    except (OSError, ValueError) as error:
        raise HostUnreachable(f"The control port {control} does not answer: {error}.") from error
    if not answer["ok"]:
        raise Invalid(answer["error"])
    return answer
