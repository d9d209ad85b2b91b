"""`engine-pg users`: who may log in. Works on the database; no node needs to run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from engine_pg.api.accounts import users
from engine_pg.api.accounts.passwords import Passwords
from engine_pg.cli.passwords import PasswordFile, password_in
from engine_pg.db.database import Database
from engine_pg.db.tx import Tx
from engine_pg.db.urls import libpq_url
from engine_pg.errors import Conflict
from engine_pg.settings import load_settings

app = typer.Typer(help="Add, list and remove those who may log in.", no_args_is_help=True)

T = TypeVar("T")

Name = Annotated[str, typer.Argument(help="User name, e.g. admin@internal.")]


def _write(work: Callable[[Tx], Awaitable[T]]) -> T:
    """Run something in one transaction on the database that the settings name."""

    async def run() -> T:
        url = libpq_url(load_settings().database_url.get_secret_value())
        async with Database(url, name="engine_pg users", pool_max=1) as db, db.write() as tx:
            return await work(tx)

    return asyncio.run(run())


def _password_hash(file: Path | None) -> str:
    return asyncio.run(Passwords().hash(password_in(file, twice=True)))


def _say(text: str) -> None:
    Console().print(text, highlight=False, markup=False)


@app.command()
def add(
    name: Name,
    password_file: PasswordFile = None,
    if_missing: Annotated[
        bool, typer.Option("--if-missing", help="Succeed when the user is there already.")
    ] = False,
) -> None:
    """Add a user, who may then do everything."""
    name = users.checked_name(name)
    if if_missing and _write(lambda tx: users.find(tx, name)):
        _say(f"{name} is there already")
        return
    password_hash = _password_hash(password_file)
    if _write(lambda tx: users.add(tx, name, password_hash)):
        _say(f"{name} was added")
    elif not if_missing:
        raise Conflict(f"there is a user {name} already")


@app.command(name="list")
def list_() -> None:
    """List the users."""
    table = Table("Name", "Enabled", "Since")
    for user in _write(users.listed):
        since = user.created_at.strftime("%Y-%m-%d %H:%M")
        table.add_row(user.name, "yes" if user.enabled else "no", since)
    Console().print(table)


@app.command()
def passwd(name: Name, password_file: PasswordFile = None) -> None:
    """Give a user another password; whoever is logged in under the name is logged out."""
    password_hash = _password_hash(password_file)
    _write(lambda tx: users.set_password(tx, name, password_hash))
    _say(f"the password of {name} was changed")


@app.command()
def remove(name: Name) -> None:
    """Remove a user; the last one stays."""
    _write(lambda tx: users.remove(tx, name))
    _say(f"{name} was removed")
