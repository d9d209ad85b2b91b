"""Alembic from inside: what `engine-pg db` and the tests call; DBAs may call alembic itself."""

from __future__ import annotations

import io
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psycopg
import sqlalchemy as sa
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from sqlalchemy.exc import OperationalError, ProgrammingError

import engine_pg
from alembic import command
from engine_pg.db.urls import libpq_url, sqlalchemy_url
from engine_pg.errors import DatabaseAway, Forbidden, Invalid, Unavailable

EXPAND: Final = "expand"
_TRIES: Final = 30
_IN_USE: Final = (
    "a table was in use for too long, again and again: end the long transaction (pg_stat_activity"
    " tells whose it is) and call this again; what was migrated so far stays so"
)
_PACKAGE: Final = Path(engine_pg.__file__).parent


def scripts() -> Path:
    """Return the folder of the migrations: inside an installed package, beside it in a checkout."""
    for folder in (_PACKAGE / "_alembic", _PACKAGE.parent / "alembic"):
        if (folder / "env.py").is_file():
            return folder
    raise Invalid("the migrations are missing: reinstall engine-pg")


def _config(
    url: str | None, output: io.StringIO | None = None, schema: str | None = None
) -> Config:
    config = Config(output_buffer=output, stdout=output or io.StringIO())
    config.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["url"] = url and libpq_url(url)
    config.attributes["schema"] = schema
    return config


@contextmanager
def _translated() -> Generator[None]:
    try:
        yield
    except OperationalError as error:
        if isinstance(error.orig, psycopg.errors.LockNotAvailable):
            raise Unavailable(_IN_USE) from error
        raise DatabaseAway(str(error.orig).strip()) from error
    except ProgrammingError as error:
        if isinstance(error.orig, psycopg.errors.InsufficientPrivilege):
            raise Forbidden(str(error.orig).strip()) from error
        raise


def upgrade(
    url: str, revision: str = "head", *, schema: str | None = None, tries: int = _TRIES
) -> None:
    """Migrate the database; several callers at once migrate once.

    A revision that a table is not free for within a second gives way and is tried again: raises
    `Unavailable` after so many tries, with the revisions before it done.

    With `schema` everything goes in there, the version table as well; it is made if need be.
    """
    config = _config(url, schema=schema)
    config.attributes["tries"] = tries
    with _translated():
        command.upgrade(config, revision)


def downgrade(url: str, revision: str, *, schema: str | None = None) -> None:
    """Take migrations back, down to `revision` (`base`: all of them).

    Alembic leaves the other of two branches that a later revision joined; here what came after
    `revision` on that goes as well, since a version that ends with `revision` does not know it.
    """
    config = _config(url, schema=schema)
    script = ScriptDirectory.from_config(config)
    least = "" if revision == "base" else script.get_revision(revision).revision
    with _translated():
        command.downgrade(config, revision)
        while later := [head for head in _heads(url, schema) if head > least]:
            command.downgrade(config, f"{max(later)}@-1")


def check(url: str) -> None:
    """Raise `Invalid` if the tables of the database differ from the inventory's definition."""
    try:
        command.check(_config(url))
    except command.util.CommandError as error:
        raise Invalid(str(error)) from error


def sql(revision: str = "head", *, schema: str | None = None) -> str:
    """Return the migrations up to `revision` (or a range `a:b`) as SQL for a DBA to run."""
    output = io.StringIO()
    command.upgrade(_config(None, output, schema), revision, sql=True)
    return output.getvalue()


def current(url: str, *, schema: str | None = None) -> str | None:
    """Return the revision that the database is at, or None if it was never migrated.

    Between two revisions of which one joins two branches it is at the older of two.
    """
    with _translated():
        return min(_heads(url, schema), default=None)


def _heads(url: str, schema: str | None) -> set[str]:
    engine = sa.create_engine(sqlalchemy_url(url), poolclass=sa.pool.NullPool)
    with engine.connect() as connection:
        options = {"version_table_schema": schema}
        return set(MigrationContext.configure(connection, opts=options).get_current_heads())


def known() -> set[str]:
    """Return every revision that this version knows."""
    script = ScriptDirectory.from_config(_config(None))
    return {each.revision for each in script.walk_revisions()}


def head() -> str:
    """Return the newest revision that this version of the engine knows."""
    newest = ScriptDirectory.from_config(_config(None)).get_current_head()
    if newest is None:
        raise Invalid("there are no migrations")
    return newest


def needed() -> str:
    """Return the oldest revision that this version's nodes work on.

    Contractions at the end may wait: they are run when the nodes of the release before are gone.
    """
    script = ScriptDirectory.from_config(_config(None))
    for each in script.walk_revisions():
        if phase_of(each) == EXPAND:
            return each.revision
    raise Invalid("there are no migrations")


def phase_of(script: Script) -> str:
    """Return `expand` if nodes of the release before work on after it, `contract` if not."""
    return getattr(script.module, "phase", EXPAND)
