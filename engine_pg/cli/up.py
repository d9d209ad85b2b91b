"""`engine-pg up`: everything on this machine, from nothing, until told to stop."""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from pathlib import Path
from typing import Annotated, Final, Literal

import typer
from rich.console import Console
from rich.live import Live

from engine_pg.cli.view import render
from engine_pg.demo.furnish import furnish
from engine_pg.demo.stack import ADMIN, Options, Stack
from engine_pg.demo.state import StateFolder, default_state_folder
from engine_pg.errors import EngineError
from engine_pg.formation import Plan

_REFRESH_S: Final = 0.25
_SAID: Final = 4


def up(
    nodes: Annotated[int, typer.Option(min=1, max=50, help="Engine nodes.")] = 3,
    hosts: Annotated[int, typer.Option(min=1, max=500, help="Simulated hosts.")] = 3,
    vms: Annotated[int, typer.Option(min=0, max=10000, help="VMs to make and start.")] = 20,
    state_dir: Annotated[
        Path | None,
        typer.Option(help="Where everything is kept; the next `up` goes on from there."),
    ] = None,
    view: Annotated[bool, typer.Option(help="Show the live view (on a terminal).")] = True,
    for_s: Annotated[
        float | None, typer.Option("--for", min=0, metavar="SECONDS", help="Stop after so long.")
    ] = None,
    base_port: Annotated[
        int, typer.Option(min=0, max=65000, help="Port of node-1's API; each next takes the next.")
    ] = 0,
    fencing: Annotated[
        Literal["all", "none"], typer.Option(help="Hosts refuse stale tokens, or are as real ones.")
    ] = "all",
    ha: Annotated[
        bool, typer.Option("--ha", help="PostgreSQL is a formation that survives its primary.")
    ] = False,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Stay up when hosts or VMs cannot be made.")
    ] = False,
) -> None:
    """Start PostgreSQL, nodes, simulated hosts and VMs, and show them live."""
    state = StateFolder(state_dir or default_state_folder())
    options = Options(
        nodes=nodes,
        hosts=hosts,
        base_port=base_port,
        fencing=fencing,
        formation=Plan() if ha else None,
    )
    asyncio.run(Up(state, options, vms, keep_going=keep_going).run(view=view, for_s=for_s))


class Up:
    """One run of `up`: it speaks to the terminal, or into the live view while that is on."""

    def __init__(self, state: StateFolder, options: Options, vms: int, *, keep_going: bool) -> None:
        self._console = Console(highlight=False)
        self._said: deque[str] = deque(maxlen=_SAID)
        self._viewing = False
        self._told_to_stop = False
        self._stack = Stack(state, options, self._tell)
        self._vms = vms
        self._keep_going = keep_going

    async def run(self, *, view: bool, for_s: float | None) -> None:
        """Start all, show it for so long or until a signal, stop all."""
        self._listen_for_signals()
        try:
            async with self._stack:
                await self._furnish()
                self._tell_how_to_use()
                async with asyncio.timeout(for_s):
                    if view and self._console.is_terminal:
                        await self._show()
                    await asyncio.Event().wait()
        except TimeoutError:
            pass
        except asyncio.CancelledError:
            if not self._told_to_stop:
                raise
        self._console.print("Stopped; nothing is left running.")

    def _listen_for_signals(self) -> None:
        """End in order at the first signal, and at once at the second."""
        run = asyncio.current_task()
        assert run is not None

        def told() -> None:
            if self._told_to_stop:
                self._stack.kill_everything()
            else:
                self._told_to_stop = True
                run.cancel()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, told)

    async def _furnish(self) -> None:
        try:
            async with self._stack.client() as client:
                ports = self._stack.host_ports
                await furnish(client, host_ports=ports, vms=self._vms, tell=self._tell)
        except* EngineError as group:
            if not self._keep_going:
                raise
            for error in group.exceptions:
                self._tell(str(error))

    async def _show(self) -> None:
        async with self._stack.client() as client:
            with Live(console=self._console, screen=True, auto_refresh=False) as live:
                self._viewing = True
                try:
                    while True:
                        try:
                            status = await client.status()
                        except EngineError:
                            status = None
                        height = self._console.size.height
                        live.update(
                            render(self._stack, status, self._said, height=height), refresh=True
                        )
                        await asyncio.sleep(_REFRESH_S)
                finally:
                    self._viewing = False

    def _tell(self, line: str) -> None:
        self._said.appendleft(line)
        if not self._viewing:
            self._console.print(line, markup=False, soft_wrap=True)

    def _tell_how_to_use(self) -> None:
        self._tell(f"Ready: {self._stack.urls[0]}/ovirt-engine/api, Ctrl-C stops everything")
        self._tell(f"Log in as {ADMIN}; the password is in {self._stack.state.password_file}")
