"""Run the migrations, online on ENGINE_DATABASE_URL or offline (`--sql`).

Each revision is a transaction of its own, and waits for no table longer than a moment: a statement
that waits for a lock makes everybody wait who comes after it. So it gives up, lets the others pass,
and tries again.

A caller may name a schema: all goes in there, the version table too, and what others call from
sessions with a search path of their own finds its way by itself.
"""

from __future__ import annotations

import os
import time

from sqlalchemy import Connection, create_engine, pool
from sqlalchemy.exc import OperationalError

from alembic import context
from engine_pg.db.urls import schema_url, sqlalchemy_url
from engine_pg.inventory.tables import metadata

LOCK = 7_004_2026
TURN_S = 60.0
LOCK_WAIT = "1s"
TRIES = 30
PAUSE_S = 1.0
CROWDED = {"55P03", "40P01"}  # lock timeout, deadlock
PIN = """
do $$ begin
  if to_regproc('fence_enter') is not null then
    alter function fence_enter set search_path = {name}, pg_temp;
  end if;
end $$
"""
# What the roles may do with each table stands in a function that `engine-pg db roles` makes.
GRANT = """
do $$ begin
  if to_regproc('public.privileges_grant') is not null then
    perform public.privileges_grant();
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
    """Run the revisions, in transactions of their own, and what follows all of them."""
    name = schema()
    with context.begin_transaction():
        context.run_migrations()
    context.execute(GRANT if name is None else PIN.format(name=name))


def take_turn(connection: Connection) -> None:
    """Two nodes that start at once migrate once: the second waits, and finds nothing to do.

    It asks again and again, in statements that end: a concurrent index waits for all others.
    """
    for _ in range(int(TURN_S / 0.1)):
        got = connection.exec_driver_sql(f"select pg_try_advisory_lock({LOCK})").scalar_one()
        connection.commit()
        if got:
            return
        time.sleep(0.1)
    raise SystemExit(f"somebody else has been migrating this database for {TURN_S:g} s")


def patiently(connection: Connection) -> None:
    """Migrate; go on from the last revision that was done when a table was in use for too long."""
    tries = context.config.attributes.get("tries", TRIES)
    for left in reversed(range(tries)):
        try:
            migrate()
            connection.commit()
        except OperationalError as error:
            connection.rollback()
            if left == 0 or getattr(error.orig, "sqlstate", None) not in CROWDED:
                raise
            time.sleep(PAUSE_S)
        else:
            return


def online() -> None:
    engine = create_engine(url(), poolclass=pool.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"set lock_timeout = '{LOCK_WAIT}'")
        take_turn(connection)
        if (name := schema()) is not None:
            connection.exec_driver_sql(f"create schema if not exists {name}")
            connection.commit()
        context.configure(
            connection=connection,
            target_metadata=metadata,
            include_name=include_name,
            version_table_schema=name,
            transaction_per_migration=True,
        )
        patiently(connection)
        connection.exec_driver_sql(f"select pg_advisory_unlock({LOCK})")
        connection.commit()
    engine.dispose()


def offline() -> None:
    name = schema()
    context.configure(
        dialect_name="postgresql",
        dialect_opts={"paramstyle": "named"},  # else each % of a function is printed twice
        literal_binds=True,
        version_table_schema=name,
        transaction_per_migration=True,
    )
    context.execute(f"set lock_timeout = '{LOCK_WAIT}'")
    if name is not None:
        context.execute(f"create schema if not exists {name}")
        context.execute(f"set search_path = {name}")
    migrate()
    context.execute("reset lock_timeout")
    if name is not None:
        context.execute("reset search_path")


if context.is_offline_mode():
    offline()
else:
    online()
