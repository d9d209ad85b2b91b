"""`engine-pg formation`: a monitor and its data nodes on this machine, for labs and tests."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Final, Literal

import typer
from rich.console import Console, RenderableType

from engine_pg.cli.passwords import password_in
from engine_pg.cli.showing import AsJson, seconds, table, with_warnings, word
from engine_pg.db.embedded.account import Account
from engine_pg.db.urls import shown_url
from engine_pg.demo.state import default_state_folder
from engine_pg.formation import Formation, Plan
from engine_pg.formation.files import NAMES
from engine_pg.formation.files import files as written
from engine_pg.formation.profiles import Profile
from engine_pg.formation.state import FormationState, NodeState

app = typer.Typer(
    help="A PostgreSQL that survives its primary: pg_auto_failover on this machine, for labs.",
    no_args_is_help=True,
)
StateDir = Annotated[
    Path | None, typer.Option(help="Where the formation is kept; the engine's own state folder.")
]
_COLUMNS: Final = ("node", "address", "state", "goal", "access", "sync", ">lag", ">tli", ">silent")


@app.command()
def up(
    nodes: Annotated[int, typer.Option(min=2, max=3, help="Data nodes, beside the monitor.")] = 2,
    profile: Annotated[
        Profile,
        typer.Option(
            help="fast: writes go on after some 4 s; safe: never two writable servers, some 14 s."
        ),
    ] = "fast",
    base_port: Annotated[
        int, typer.Option(min=0, max=65000, help="Port of the monitor; each node takes the next.")
    ] = 0,
    state_dir: StateDir = None,
) -> None:
    """Start a formation, or what of it does not run, and print its address."""
    formation = _formation(state_dir)
    count: Literal[2, 3] = 3 if nodes == 3 else 2
    state = formation.up(Plan(count, profile, base_port), _tell)
    console = Console(highlight=False)
    console.print(_shown(state))
    place = formation.place()
    console.print(
        f"Its address is {shown_url(place.url())}; with password and options:",
        soft_wrap=True,
    )
    call = "engine-pg formation url" + (f" --state-dir {state_dir}" if state_dir else "")
    console.print(f'  export ENGINE_DATABASE_URL="$({call})"', soft_wrap=True)


@app.command()
def status(state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """Show what the monitor says of each node, and what each says itself; 1: it is not settled."""
    state = _formation(state_dir).state()
    if as_json:
        typer.echo(json.dumps(state.document(), indent=2))
    else:
        Console(highlight=False).print(_shown(state))
    if not state.settled:
        raise typer.Exit(1)


@app.command()
def url(state_dir: StateDir = None) -> None:
    """Print the address for ENGINE_DATABASE_URL, password included: not for logs."""
    typer.echo(_formation(state_dir).url())


@app.command()
def switchover(state_dir: StateDir = None) -> None:
    """Let another node be the primary: look first, ask the monitor, wait until it is done."""
    done = _formation(state_dir).switchover(_tell)
    _tell(
        f"{done.new} has taken over from {done.old}: writable after {done.writable_after_s:.1f} s,"
        f" followed by all after {done.settled_after_s:.1f} s"
    )


@app.command()
def files(
    folder: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="Where servers read them; theirs.")
    ],
    passwords: Annotated[
        Path,
        typer.Option(
            help="Folder with a file for each role whose first line is its password: autoctl_node,"
            " pgautofailover_replicator, owner, runtime, read, monitor."
        ),
    ],
    profile: Annotated[Profile, typer.Option(help="As for `up`.")] = "fast",
    network: Annotated[
        str, typer.Option(help="Where all who connect come from, as pg_hba.conf names it.")
    ] = "samenet",
) -> None:
    """Write settings, rules and roles for a formation that you lay out on machines of your own.

    They belong to whom the folder belongs, and are for him alone.
    """
    words = {name: password_in(passwords / name) for name in NAMES}
    whose = folder.stat()
    account = Account(whose.st_uid, whose.st_gid, borrowed=os.geteuid() == 0)
    for name, text in written(folder.absolute(), profile, words, network=network).items():
        account.write(folder / name, text)
        _tell(str(folder / name))


@app.command()
def down(
    delete: Annotated[bool, typer.Option("--delete", help="Delete its data, too.")] = False,
    state_dir: StateDir = None,
) -> None:
    """Stop the monitor and all nodes; nothing is left running."""
    _formation(state_dir).down(_tell, delete=delete)
    _tell("the formation is down; nothing is left running")


def _formation(state_dir: Path | None) -> Formation:
    return Formation(state_dir or default_state_folder() / "formation")


def _tell(line: str) -> None:
    Console(highlight=False).print(line, markup=False, soft_wrap=True)


def _shown(state: FormationState) -> RenderableType:
    shown = table("There are no nodes.", _COLUMNS, (_row(node) for node in state.nodes))
    return with_warnings(shown, state.warnings)


def _row(node: NodeState) -> tuple[object, ...]:
    return (
        node.name,
        node.address,
        word(node.state, good=node.state == node.goal),
        node.goal,
        word(node.access, good=node.access != "away"),
        node.sync,
        "" if node.lag_bytes is None else f"{node.lag_bytes} B",
        node.timeline,
        seconds(node.silent_s),
    )
