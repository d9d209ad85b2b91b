"""`engine-pg demo`: failures on purpose, and a verdict on each promise."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine_pg.cli.passwords import PasswordFile, password_in
from engine_pg.demo.furnish import furnish as furnished
from engine_pg.demo.kill_node import kill_node as killing
from engine_pg.demo.rest import Client
from engine_pg.demo.restart_database import restart_database as restarting
from engine_pg.demo.stack import ADMIN, Options
from engine_pg.demo.state import StateFolder, default_state_folder
from engine_pg.demo.story import Incident, play
from engine_pg.demo.target import Target, attached, started
from engine_pg.demo.verdict import Figure, Report, as_json, spreads
from engine_pg.errors import Invalid

app = typer.Typer(
    no_args_is_help=True,
    help="Failures on purpose, each with a verdict: exit status 1 when a promise broke.",
)

StateDir = Annotated[
    Path | None,
    typer.Option(help="Attack the stack that runs there; where none runs, one is started."),
]
Vms = Annotated[int, typer.Option(min=1, max=500, help="VMs that are started and stopped.")]
Fencing = Annotated[
    Literal["all", "none"] | None,
    typer.Option(help="Of a stack that is started: hosts refuse stale tokens (all), or do not."),
]
Seed = Annotated[int, typer.Option(help="Another seed, another moment.")]
Repeat = Annotated[int, typer.Option(min=1, max=10000, help="How often it is to happen.")]
Json = Annotated[
    Path | None, typer.Option("--json", dir_okay=False, help="Write all figures to a file.")
]

_VMS: Final = 12


@app.command()
def kill_node(
    state_dir: StateDir = None,
    vms: Vms = _VMS,
    fencing: Fencing = None,
    seed: Seed = 0,
    repeat: Repeat = 1,
    json_file: Json = None,
) -> None:
    """Kill the busiest node in the middle of its work, and watch the others take over."""
    Demo("kill-node", killing, vms, seed, repeat, json_file).perform(state_dir, fencing)


@app.command()
def restart_database(
    state_dir: StateDir = None,
    vms: Vms = _VMS,
    fencing: Fencing = None,
    seed: Seed = 0,
    repeat: Repeat = 1,
    json_file: Json = None,
) -> None:
    """Crash PostgreSQL under running commands, and watch the work go on."""
    Demo("restart-database", restarting, vms, seed, repeat, json_file, needs_server=True).perform(
        state_dir, fencing
    )


@app.command()
def furnish(
    url: Annotated[list[str], typer.Option(help="Address of an API; several: all are used.")],
    password_file: PasswordFile = None,
    address: Annotated[str, typer.Option(help="Where the simulated hosts are.")] = "127.0.0.1",
    base_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of host 1.")] = 54321,
    hosts: Annotated[int, typer.Option(min=1, max=500, help="Simulated hosts.")] = 3,
    vms: Annotated[int, typer.Option(min=0, max=10000, help="VMs to make and start.")] = 20,
) -> None:
    """Make a data center, a cluster, hosts and running VMs where they are missing."""
    console = Console(highlight=False)
    ports = range(base_port, base_port + hosts)

    async def run() -> None:
        async with Client(url, ADMIN, password_in(password_file)) as client:
            await furnished(client, host_ports=ports, vms=vms, tell=console.print, address=address)

    asyncio.run(run())


@dataclass(frozen=True, slots=True)
class Demo:
    """One story, told once or many times."""

    name: str
    incident: Incident
    vms: int
    seed: int
    repeat: int
    json_file: Path | None
    needs_server: bool = False

    def perform(self, state_dir: Path | None, fencing: Literal["all", "none"] | None) -> None:
        """Tell the story; leaves with exit status 1 when a promise broke."""
        console = Console(highlight=False)

        def tell(line: str) -> None:
            console.print(Text(line, style="dim"), soft_wrap=True)

        state = StateFolder(state_dir or default_state_folder())
        stack = self._stack(state, fencing, tell)
        try:
            asyncio.run(self._run(stack, console, tell))
        except asyncio.CancelledError:
            console.print("Stopped before the verdict.")
            raise typer.Exit(1) from None

    def _stack(
        self,
        state: StateFolder,
        fencing: Literal["all", "none"] | None,
        tell: Callable[[str], None],
    ) -> AbstractAsyncContextManager[Target]:
        if not state.in_use():
            options = Options(fencing=fencing or "all")
            return started(options, tell, own_server=self.needs_server)
        if fencing is not None:
            raise Invalid(
                f"the hosts of the stack in {state.path} are as they are:"
                " --fencing is for a stack that the demo starts"
            )
        return attached(state, tell, own_server=self.needs_server)

    async def _run(
        self,
        stack: AbstractAsyncContextManager[Target],
        console: Console,
        tell: Callable[[str], None],
    ) -> None:
        _end_in_order_when_told()
        reports: list[Report] = []
        async with stack as target:
            for number in range(self.repeat):
                if self.repeat > 1:
                    tell(f"Run {number + 1} of {self.repeat}")
                report = await play(
                    self.incident, target, vms=self.vms, seed=self.seed + number, tell=tell
                )
                reports.append(report)
                show(console, report)
            if self.repeat > 1:
                console.print(_summary(reports))
            if self.json_file:
                self.json_file.write_text(json.dumps(as_json(self.name, reports), indent=2) + "\n")
            if not all(report.kept for report in reports):
                raise typer.Exit(1)


def _end_in_order_when_told() -> None:
    run = asyncio.current_task()
    assert run is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, run.cancel)


def show(console: Console, report: Report) -> None:
    """Print what was measured and promised, and the verdict."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("What")
    table.add_column("Measured", justify="right")
    table.add_column("Promised", justify="right")
    table.add_column("Verdict")
    for figure in report.figures:
        table.add_row(figure.title, _number(figure.value, figure), _bound(figure), _mark(figure))
    console.print(table)
    for note in report.notes:
        console.print(Text(note, style="dim"), soft_wrap=True)
    verdict = "PASS" if report.kept else "FAIL"
    console.print(Text(verdict, style="bold green" if report.kept else "bold red"))


def _summary(reports: Sequence[Report]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=f"{len(reports)} runs")
    table.add_column("What")
    for heading in ("Least", "Median", "Most", "Promised", "Broken"):
        table.add_column(heading, justify="right")
    for spread in spreads(reports):
        figure = spread.figure
        numbers = [_number(each, figure) for each in (spread.lowest, spread.median, spread.highest)]
        broken = Text(str(spread.broken), style="red" if spread.broken else "green")
        row = [figure.title, *numbers, _bound(figure), broken if figure.promised else ""]
        table.add_row(*row)
    return table


def _number(value: float, figure: Figure) -> str:
    return f"{value:.3f} {figure.unit}" if figure.unit else f"{value:g}"


def _bound(figure: Figure) -> str:
    if figure.most is not None:
        return f"at most {_number(figure.most, figure)}" if figure.most else "none"
    return "" if figure.least is None else f"at least {_number(figure.least, figure)}"


def _mark(figure: Figure) -> Text:
    if not figure.promised:
        return Text("")
    return Text("PASS", style="green") if figure.kept else Text("FAIL", style="bold red")
