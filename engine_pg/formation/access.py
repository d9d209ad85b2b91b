"""Who may do what on the servers of a formation; pg_autoctl alone would let them do far more.

It makes its replication role a superuser, for pg_rewind. That needs no more than to replicate, to
read files of the primary, and to ask it for a checkpoint. The engine's role owns its own database
and nothing else. Passwords are sent hashed: no log ever has them.
"""

from __future__ import annotations

from typing import Final

from psycopg import sql

from engine_pg.db.wire import bounded
from engine_pg.formation.asking import BOUND_S, ask, session
from engine_pg.formation.place import DATABASE, KEEPER, MONITOR, OWNER, REPLICATOR, WATCHER, Place

REPLICATOR_RIGHTS: Final = sql.SQL(
    """
alter role {role} nosuperuser nocreatedb nocreaterole login replication;
grant pg_checkpoint to {role};
grant execute on function pg_catalog.pg_ls_dir(text, boolean, boolean),
                          pg_catalog.pg_stat_file(text, boolean),
                          pg_catalog.pg_read_binary_file(text),
                          pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean)
   to {role};
"""
).format(role=sql.Identifier(REPLICATOR))
_OWNER_KNOWN: Final = sql.SQL("select 1 from pg_roles where rolname = {}").format(OWNER)
_DATABASE_KNOWN: Final = sql.SQL("select 1 from pg_database where datname = {}").format(DATABASE)
_MAKE_OWNER: Final = sql.SQL("create role {} login nosuperuser nocreatedb nocreaterole").format(
    sql.Identifier(OWNER)
)
_MAKE_DATABASE: Final = sql.SQL("create database {} owner {}").format(
    sql.Identifier(DATABASE), sql.Identifier(OWNER)
)
_CLOSE_DATABASE: Final = sql.SQL("revoke all on database {} from public").format(
    sql.Identifier(DATABASE)
)
_WATCHER_KNOWN: Final = sql.SQL("select 1 from pg_roles where rolname = {}").format(WATCHER)
MAKE_WATCHER: Final = sql.SQL("create role {} login nosuperuser nocreatedb nocreaterole").format(
    sql.Identifier(WATCHER)
)
WATCHER_RIGHTS: Final = sql.SQL(
    """
revoke execute on all functions in schema pgautofailover from public;
grant execute on all functions in schema pgautofailover to {keeper};
grant usage on schema pgautofailover to {role};
grant select on pgautofailover.node, pgautofailover.formation to {role};
grant execute on function pgautofailover.perform_failover(text, int) to {role};
"""
).format(role=sql.Identifier(WATCHER), keeper=sql.Identifier(KEEPER))
_MAKE_BOUND_S: Final = 30.0  # a whole database is copied


async def set_password(place: Place, name: str, role: str) -> None:
    """Give a role of the monitor's or a node's server the password that was generated for it."""
    word = place.memory.passwords[role].encode()
    async with session(place, name) as connection:
        hashed = connection.pgconn.encrypt_password(word, role.encode(), b"scram-sha-256")
        query = sql.SQL("alter role {} password {}").format(sql.Identifier(role), hashed.decode())
        await bounded(connection, connection.execute(query), BOUND_S)


async def grant_replicator(place: Place, name: str) -> None:
    """Leave the replication role what replication and pg_rewind need."""
    await ask(place, name, REPLICATOR_RIGHTS)


async def set_up_watcher(place: Place) -> None:
    """See that the monitor has the role that looks at the formation and asks for a switchover.

    The extension lets everybody call all of its functions, also those that drop nodes.
    """
    if not await ask(place, MONITOR, _WATCHER_KNOWN):
        await ask(place, MONITOR, MAKE_WATCHER)
    await ask(place, MONITOR, WATCHER_RIGHTS)
    await set_password(place, MONITOR, WATCHER)


async def set_up_database(place: Place, name: str) -> None:
    """See that the engine's role and its database are there."""
    if not await ask(place, name, _OWNER_KNOWN):
        await ask(place, name, _MAKE_OWNER)
    await set_password(place, name, OWNER)
    if not await ask(place, name, _DATABASE_KNOWN):
        await ask(place, name, _MAKE_DATABASE, bound_s=_MAKE_BOUND_S)
        await ask(place, name, _CLOSE_DATABASE)
