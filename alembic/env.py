"""Run the migrations, online on ENGINE_DATABASE_URL or offline (`--sql`)."""

from __future__ import annotations

import os

from sqlalchemy import create_engine, pool

from alembic import context
from engine_pg.db.urls import sqlalchemy_url
from engine_pg.inventory.tables import metadata

LOCK = 7_004_2026


def include_name(name: str | None, kind: str, _parents: object) -> bool:
    """Compare the inventory only: the rest is plain SQL with no second definition."""
    return kind != "table" or name in metadata.tables


def url() -> str:
    given = context.config.attributes.get("url") or os.environ.get("ENGINE_DATABASE_URL")
    if not given:
        raise SystemExit("ENGINE_DATABASE_URL is not set: which database shall be migrated?")
    return sqlalchemy_url(given)


def online() -> None:
    engine = create_engine(url(), poolclass=pool.NullPool)
    with engine.connect() as connection:
        # Two nodes that start at once migrate once: the second waits, and finds nothing to do.
        connection.exec_driver_sql(f"select pg_advisory_lock({LOCK})")
        connection.commit()
        context.configure(
            connection=connection, target_metadata=metadata, include_name=include_name
        )
        with context.begin_transaction():
            context.run_migrations()
        connection.exec_driver_sql(f"select pg_advisory_unlock({LOCK})")
        connection.commit()
    engine.dispose()


if context.is_offline_mode():
    context.configure(dialect_name="postgresql", literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    online()
