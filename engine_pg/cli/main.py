"""The root of the command line: what there is to call, and how a failure is told.

A command is imported when it is called: most need far more than it takes to tell what there is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Annotated, Final, cast

import typer
from rich.console import Console
from rich.text import Text

import engine_pg
from engine_pg.errors import EngineError, Invalid

COMMANDS: Final = {
    "up": (
        "engine_pg.cli.up:up",
        "Start PostgreSQL, nodes, simulated hosts and VMs, and show them live.",
    ),
    "serve": (
        "engine_pg.cli.serve:serve",
        "Run one engine node, configured by ENGINE_* variables or ENGINE_CONFIG_FILE.",
    ),
    "demo": (
        "engine_pg.cli.demo:app",
        "Failures on purpose, each with a verdict: exit status 1 when a promise broke.",
    ),
    "drain": (
        "engine_pg.cli.drain:drain",
        "Empty a node before maintenance: it leads nothing, runs nothing, takes nothing new.",
    ),
    "formation": (
        "engine_pg.cli.formation:app",
        "A PostgreSQL that survives its primary: what is known of it; one here, for labs.",
    ),
    "db": ("engine_pg.cli.db:app", "Migrate and inspect the engine's database."),
    "status": (
        "engine_pg.cli.cluster:status",
        "Show the state of the cluster in a few figures, with a warning for all that is not well.",
    ),
    "members": (
        "engine_pg.cli.cluster:members",
        "List the members: each life of each node, its lease, and what it leads and holds.",
    ),
    "leaders": (
        "engine_pg.cli.leaders:app",
        "List who leads what, since when, under which term; give orders.",
    ),
    "locks": (
        "engine_pg.cli.locks:app",
        "List who holds which lock, since when and why; break one.",
    ),
    "commands": (
        "engine_pg.cli.commands:app",
        "List what the engine was asked to do, and how far it is; cancel it, or try it again.",
    ),
    "waiters": (
        "engine_pg.cli.cluster:waiters",
        "List who waits for locks, and for whom, the first to come first; tell of deadlocks.",
    ),
    "changes": (
        "engine_pg.cli.changes:changes",
        "Show what changes; each line's cursor is a place to go on from, at any node.",
    ),
    "settings": (
        "engine_pg.cli.settings:app",
        "Show and change what all nodes go by; no node is restarted.",
    ),
    "schedules": (
        "engine_pg.cli.schedules:app",
        "Show, change, pause and trigger what happens at set times; no node is restarted.",
    ),
    "users": ("engine_pg.cli.users:app", "Add, list and remove those who may log in."),
    "host-sim": (
        "engine_pg.cli.host_sim:app",
        "Simulated hosts, and the judge of what was done to them.",
    ),
}
"""What there is: where each command is, and its own first sentence."""

INTERRUPTED: Final = 130  # what shells say of a program that Ctrl-C ended


def _group() -> typer.Typer:
    return typer.Typer(
        help=engine_pg.__doc__,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )


def loaded(name: str) -> typer.Typer:
    """Return a command line with this one command, imported."""
    module, _, attribute = COMMANDS[name][0].partition(":")
    found = getattr(import_module(module), attribute)
    only = _group()
    if isinstance(found, typer.Typer):
        only.add_typer(found, name=name)
    else:
        only.command(name)(found)
    return only


def _deferred(name: str) -> Callable[[typer.Context], None]:
    def call(context: typer.Context) -> None:
        try:
            command = typer.main.get_group(loaded(name)).commands[name]
            with command.make_context(name, context.args, context.parent) as inner:
                command.invoke(inner)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None

    return call


app = _group()
for _name, (_, _sentence) in COMMANDS.items():
    app.command(
        _name,
        short_help=_sentence,
        add_help_option=False,
        context_settings={
            "ignore_unknown_options": True,
            "allow_extra_args": True,
            "allow_interspersed_args": False,
        },
    )(_deferred(_name))


class _Choice:
    debug = False


def _show_version(wanted: bool) -> None:
    if wanted:
        Console().print(f"engine-pg {engine_pg.__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
    debug: Annotated[bool, typer.Option(help="Show the traceback of a failure.")] = False,
) -> None:
    """Take the options that stand before every command."""
    del version
    _Choice.debug = debug


def run() -> None:
    """Run the command line; a failure is one red line and exit status 1 (2: the call was wrong)."""
    try:
        app()
    except Exception as error:
        if _Choice.debug:
            raise
        sys.exit(_told(error))


def _told(error: Exception) -> int:
    console = Console(stderr=True, highlight=False)
    leaves = list(_leaves(error))
    for leaf in leaves:
        known = isinstance(leaf, EngineError)
        said = str(leaf) if known else f"a bug, see --debug: {type(leaf).__name__}: {leaf}"
        console.print(Text(said, style="red"), soft_wrap=True)
    return 2 if all(isinstance(leaf, Invalid) for leaf in leaves) else 1


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from _leaves(inner)
    else:
        yield error
