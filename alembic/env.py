"""Run the migrations, online on ENGINE_DATABASE_URL or offline (`--sql`).

A caller may name a schema: all goes in there, the version table too, and what others call from
sessions with a search path of their own finds its way by itself.
"""

from __future__ import annotations

import os

from sqlalchemy import create_engine, pool

from alembic import context
from engine_pg.db.urls import schema_url, sqlalchemy_url
from engine_pg.inventory.tables import metadata

LOCK = 7_004_2026
LONGEST_WAIT = "60s"
PIN = """
do $$ begin
  if to_regproc('fence_enter') is not null then
    alter function fence_enter set search_path = {name}, pg_temp;
  end if;
end $$
"""


def include_name(name: str | None, kind: str, _parents: object) -> bool:
    """Compare the inventory only: the rest is plain SQL with no second definition."""
    return kind != "table" or name in metadata.tables


def schema() -> str | None:
    return context.config.attributes.get("schema")


def url() -> str:
    given = context.config.attributes.get("url") or os.environ.get("ENGINE_DATABASE_URL")
    if not given:
        raise SystemExit("ENGINE_DATABASE_URL is not set: which database shall be migrated?")
    name = schema()
    return sqlalchemy_url(given if name is None else schema_url(given, name))


def migrate() -> None:
    name = schema()
    with context.begin_transaction():
        if name is not None:
            context.execute(f"create schema if not exists {name}")
            context.execute(f"set local search_path = {name}")
        context.run_migrations()
        if name is not None:
            context.execute(PIN.format(name=name))


def online() -> None:
    engine = create_engine(url(), poolclass=pool.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"set lock_timeout = '{LONGEST_WAIT}'")
        # Two nodes that start at once migrate once: the second waits, and finds nothing to do.
        connection.exec_driver_sql(f"select pg_advisory_lock({LOCK})")
        connection.commit()
        context.configure(
            connection=connection,
            target_metadata=metadata,
            include_name=include_name,
            version_table_schema=schema(),
        )
        migrate()
        connection.exec_driver_sql(f"select pg_advisory_unlock({LOCK})")
        connection.commit()
    engine.dispose()


if context.is_offline_mode():
    context.configure(
        dialect_name="postgresql",
        dialect_opts={"paramstyle": "named"},  # else each % of a function is printed twice
        literal_binds=True,
        version_table_schema=schema(),
    )
    migrate()
else:
    online()
