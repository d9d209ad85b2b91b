"""`engine-pg db`: the migrations, for those who don't call alembic themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from engine_pg.cli.passwords import password_in
from engine_pg.cli.restored import restored
from engine_pg.db import migrate
from engine_pg.db import roles as database_roles
from engine_pg.errors import Invalid
from engine_pg.settings import load_settings

app = typer.Typer(help="Migrate and inspect the engine's database.", no_args_is_help=True)
app.command()(restored)


def _url() -> str:
    return load_settings().database_url.get_secret_value()


@app.command()
def upgrade(
    revision: Annotated[
        str | None,
        typer.Argument(
            help="Revision to migrate to; `head` also runs the contractions at the end, which"
            " nodes of the release before do not survive.",
            show_default="what this engine needs",
        ),
    ] = None,
) -> None:
    """Migrate the database; several callers at once migrate once."""
    url, needed, head = _url(), migrate.needed(), migrate.head()
    migrate.upgrade(url, revision or needed)
    console = Console(highlight=False)
    console.print(f"the database is at revision {migrate.current(url)}")
    if revision is None and head != needed:
        console.print("once no node of the release before runs: engine-pg db upgrade head")


@app.command()
def current() -> None:
    """Show the revision of the database and the one that this engine needs."""
    at, needed, head = migrate.current(_url()), migrate.needed(), migrate.head()
    Console().print(f"database: {at or 'empty'}\nengine:   {needed}", highlight=False)
    if at not in (needed, head):
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


@app.command()
def roles(
    prefix: Annotated[str, typer.Option(help="What the roles' names begin with.")] = "engine",
    passwords: Annotated[
        Path | None,
        typer.Option(
            help="Folder with files named owner, runtime, read, monitor: the first line of each is"
            " that role's password. A role without a file keeps its password, or has none."
        ),
    ] = None,
    only_sql: Annotated[
        bool, typer.Option("--sql", help="Print the SQL instead, for a DBA to read and run.")
    ] = False,
) -> None:
    """Make the roles that own, use, read and monitor the database; or make them as they should be.

    The database is named as for every command; its user here is a superuser, or may create roles.
    """
    given = _passwords_in(passwords)
    if only_sql:
        typer.echo(database_roles.sql(prefix, given), nl=False)
        return
    database_roles.make(_url(), prefix, given)
    Console().print("\n".join(database_roles.names(prefix).values()), highlight=False)


def _passwords_in(folder: Path | None) -> dict[str, str]:
    if folder is None:
        return {}
    if not folder.is_dir():
        raise Invalid(f"{folder} is no folder")
    files = {kind: folder / kind for kind in database_roles.KINDS}
    return {kind: password_in(file) for kind, file in files.items() if file.exists()}
