"""`engine-pg db`: the migrations, for those who don't call alembic themselves."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from engine_pg.db import migrate
from engine_pg.errors import Invalid
from engine_pg.settings import load_settings

app = typer.Typer(help="Migrate and inspect the engine's database.", no_args_is_help=True)


def _url() -> str:
    return load_settings().database_url.get_secret_value()


@app.command()
def upgrade(
    revision: Annotated[str, typer.Argument(help="Revision to migrate to.")] = "head",
) -> None:
    """Migrate the database; several callers at once migrate once."""
    url = _url()
    migrate.upgrade(url, revision)
    Console().print(f"the database is at revision {migrate.current(url)}", highlight=False)


@app.command()
def current() -> None:
    """Show the revision of the database and the one that this engine needs."""
    at, head = migrate.current(_url()), migrate.head()
    Console().print(f"database: {at or 'empty'}\nengine:   {head}", highlight=False)
    if at != head:
        raise typer.Exit(1)


@app.command()
def check() -> None:
    """Compare the database's tables with the engine's definition; exit status 1 if they differ."""
    try:
        migrate.check(_url())
    except Invalid as differs:
        Console(stderr=True).print(str(differs), style="red", highlight=False)
        raise typer.Exit(1) from differs
    Console().print("the database and the engine agree", highlight=False)


@app.command()
def sql(
    revision: Annotated[str, typer.Argument(help="Revision, or a range FROM:TO.")] = "head",
) -> None:
    """Print the migrations as SQL, for a DBA to read and run."""
    typer.echo(migrate.sql(revision), nl=False)
