"""Alembic from inside: what `engine-pg db` and the tests call; DBAs may call alembic itself."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import OperationalError

import engine_pg
from alembic import command
from engine_pg.db.urls import libpq_url, sqlalchemy_url
from engine_pg.errors import DatabaseAway, Invalid

_PACKAGE: Final = Path(engine_pg.__file__).parent


def scripts() -> Path:
    """Return the folder of the migrations: inside an installed package, beside it in a checkout."""
    for folder in (_PACKAGE / "_alembic", _PACKAGE.parent / "alembic"):
        if (folder / "env.py").is_file():
            return folder
    raise Invalid("the migrations are missing: reinstall engine-pg")


def _config(url: str | None, output: io.StringIO | None = None) -> Config:
    config = Config(output_buffer=output, stdout=output or io.StringIO())
    config.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["url"] = url and libpq_url(url)
    return config


def upgrade(url: str, revision: str = "head") -> None:
    """Migrate the database; several callers at once migrate once."""
    try:
        command.upgrade(_config(url), revision)
    except OperationalError as error:
        raise DatabaseAway(str(error.orig).strip()) from error


def downgrade(url: str, revision: str) -> None:
    """Take migrations back, down to `revision` (`base`: all of them)."""
    command.downgrade(_config(url), revision)


def check(url: str) -> None:
    """Raise `Invalid` if the tables of the database differ from the inventory's definition."""
    try:
        command.check(_config(url))
    except command.util.CommandError as error:
        raise Invalid(str(error)) from error


def sql(revision: str = "head") -> str:
    """Return the migrations up to `revision` (or a range `a:b`) as SQL for a DBA to run."""
    output = io.StringIO()
    command.upgrade(_config(None, output), revision, sql=True)
    return output.getvalue()


def current(url: str) -> str | None:
    """Return the revision that the database is at, or None if it was never migrated."""
    try:
        engine = sa.create_engine(sqlalchemy_url(url), poolclass=sa.pool.NullPool)
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    except OperationalError as error:
        raise DatabaseAway(str(error.orig).strip()) from error


def head() -> str:
    """Return the newest revision that this version of the engine knows."""
    newest = ScriptDirectory.from_config(_config(None)).get_current_head()
    if newest is None:
        raise Invalid("there are no migrations")
    return newest
