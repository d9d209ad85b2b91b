"""`engine-pg formation`: the one that the database is on, and one on this machine, for labs."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer
from rich.console import Console, RenderableType

from engine_pg.cli.formation_shown import show
from engine_pg.cli.passwords import password_in
from engine_pg.cli.showing import AsJson, seconds, table, with_warnings, word
from engine_pg.db.embedded.account import Account
from engine_pg.db.urls import libpq_url, shown_url
from engine_pg.demo.state import default_state_folder
from engine_pg.formation import Formation, Plan
from engine_pg.formation.files import NAMES
from engine_pg.formation.files import files as written
from engine_pg.formation.profiles import Profile
from engine_pg.formation.remote import switch_over
from engine_pg.formation.state import FormationState, NodeState
from engine_pg.settings import Settings, load_settings

app = typer.Typer(
    help="A PostgreSQL that survives its primary: what is known of it; one here, for labs.",
    no_args_is_help=True,
)
app.command()(show)
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
    console.print(f'  export ENGINE_MONITOR_URL="$({call} --monitor)"', soft_wrap=True)


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
def url(
    monitor: Annotated[
        bool, typer.Option("--monitor", help="That of the monitor, for ENGINE_MONITOR_URL.")
    ] = False,
    state_dir: StateDir = None,
) -> None:
    """Print the address for ENGINE_DATABASE_URL, password included: not for logs."""
    made = _formation(state_dir)
    typer.echo(made.monitor_url() if monitor else made.url())


@app.command()
def switchover(state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """Let another node be the primary: look first, ask the monitor, see that all went well.

    With ENGINE_MONITOR_URL it is the formation that the database is on; else one of this machine.
    Exit status 1: it was refused, or a write or a node of the engine was lost.
    """
    tell = _tell_aside if as_json else _tell
    settings = None if state_dir else _watched_settings()
    if settings is None or settings.monitor_url is None:
        done = _formation(state_dir).switchover(tell)
        document, kept = done.document(), True
    else:
        url = libpq_url(settings.database_url.get_secret_value())
        monitor_url = settings.monitor_url.get_secret_value()
        logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # what it loses is no news here
        verdict = asyncio.run(switch_over(url, monitor_url, tell))
        document, kept = verdict.document(), verdict.kept
    if as_json:
        typer.echo(json.dumps(document, indent=2))
    else:
        _tell(_sentence(document))
    if not kept:
        raise typer.Exit(1)


@app.command()
def files(
    folder: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="Where servers read them; theirs.")
    ],
    passwords: Annotated[
        Path,
        typer.Option(
            help="Folder with a file for each role whose first line is its password: autoctl_node,"
            " pgautofailover_replicator, engine_watch, owner, runtime, read, monitor."
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


def _watched_settings() -> Settings | None:
    """Return the settings, if they may name a monitor: those of a lab need not be complete."""
    named = {"ENGINE_MONITOR_URL", "ENGINE_CONFIG_FILE"} & os.environ.keys()
    return load_settings() if named else None


def _sentence(done: dict[str, Any]) -> str:
    gap = f"; no write for {done['write_gap_s']:.1f} s" if "write_gap_s" in done else ""
    lost = f"; WRITES LOST: {done['lost']}" if done.get("lost") else ""
    missing = (
        f"; NODES THAT DID NOT RESUME: {', '.join(done['missing'])}" if done.get("missing") else ""
    )
    return (
        f"{done['new']} has taken over from {done['old']}: writable after"
        f" {done['writable_after_s']:.1f} s, followed by all after {done['settled_after_s']:.1f} s"
        f"{gap}{lost}{missing}"
    )


def _tell_aside(line: str) -> None:
    typer.echo(line, err=True)


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
