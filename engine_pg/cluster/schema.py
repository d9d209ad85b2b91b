"""The cluster's tables and functions in a schema of their own, beside all else in a database.

The migrations are a branch of the engine's, up to `REVISION`; their version table lies in the same
schema, so that the service's own migrations and these never see each other.
"""

from __future__ import annotations

from typing import Final

import psycopg
from psycopg import sql as composed

from engine_pg.db import migrate
from engine_pg.db.database import Database
from engine_pg.db.revision import revision_of
from engine_pg.db.urls import schema_url
from engine_pg.errors import Conflict, Invalid

SCHEMA: Final = "engine_pg"
REVISION: Final = "0016"
LIVE: Final = "select node from member where state = 'live' and expires_at > clock_timestamp()"


def install(url: str, schema: str = SCHEMA) -> None:
    """Install or upgrade the schema; nothing happens when it is there, several at once do it once.

    Raises `Invalid` for a schema that a newer version installed, `Forbidden` without the privilege
    to create one.
    """
    schema_url(url, schema)
    if _known(url, schema) != REVISION:
        migrate.upgrade(url, REVISION, schema=schema)


def uninstall(url: str, schema: str = SCHEMA) -> None:
    """Drop the schema; raises `Conflict` while a member lives in it or others keep tables there."""
    place = schema_url(url, schema)
    if _known(url, schema) is None:
        return
    with psycopg.connect(place) as connection:
        live = [node for (node,) in connection.execute(LIVE)]
    if live:
        raise Conflict(f"the schema {schema} is in use by {', '.join(live)}")
    migrate.downgrade(url, "base", schema=schema)
    with psycopg.connect(place) as connection:
        connection.execute("drop table alembic_version")
        try:
            connection.execute(composed.SQL("drop schema {}").format(composed.Identifier(schema)))
        except psycopg.errors.DependentObjectsStillExist as error:
            raise Conflict(f"the schema {schema} holds what others put there") from error


def sql(schema: str = SCHEMA) -> str:
    """Return what `install` does in an empty database, as SQL for a DBA to run."""
    schema_url("postgresql://", schema)
    return migrate.sql(REVISION, schema=schema)


async def check(db: Database, schema: str) -> None:
    """Raise `Invalid` unless the sessions of `db` see the schema at our revision."""
    async with db.read() as tx:
        revision = await revision_of(tx)
    if revision is None:
        raise Invalid(
            f"there is no schema {schema} that this role may use: run"
            f" `python -m engine_pg.cluster install URL --schema {schema}` and grant its usage"
        )
    if revision != REVISION:
        raise Invalid(_mismatch(schema, revision))


def _known(url: str, schema: str) -> str | None:
    at = migrate.current(url, schema=schema)
    if at is not None and (at not in migrate.known() or at > REVISION):
        raise Invalid(_mismatch(schema, at))
    return at


def _mismatch(schema: str, at: str) -> str:
    return (
        f"the schema {schema} is at revision {at}, this version of engine_pg needs {REVISION}:"
        " install the schema again, or the version that fits"
    )
