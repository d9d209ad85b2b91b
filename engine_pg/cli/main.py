"""The root of the command line: what there is to call, and how a failure is told."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated, cast

import typer
from rich.console import Console
from rich.text import Text

import engine_pg
from engine_pg.cli import db, demo, host_sim, serve, up
from engine_pg.errors import EngineError, Invalid

app = typer.Typer(
    help=engine_pg.__doc__,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(up.up)
app.command()(serve.serve)
app.add_typer(demo.app, name="demo")
app.add_typer(db.app, name="db")
app.add_typer(host_sim.app, name="host-sim")


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
