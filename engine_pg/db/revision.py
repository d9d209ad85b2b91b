"""Which revision a database is at, asked by a node that starts before its database may be up.

A server that is down, starting or recovering, or a standby, is waited for. What only people can
mend is told at once: a wrong password, a database that is not there.

Does not promise: to know a refusal in another language than English; such a server is waited for,
and the log says what it says.
"""

from __future__ import annotations

import asyncio
import logging
import re
from contextlib import suppress
from typing import Final, LiteralString

from engine_pg.clock import boottime
from engine_pg.db.database import connect
from engine_pg.db.tx import Tx
from engine_pg.errors import Invalid, OutcomeUnknown, Unavailable

log = logging.getLogger(__name__)

INSTALLED: Final[LiteralString] = "select to_regclass('alembic_version') is not null as installed"
VERSION: Final[LiteralString] = "select version_num from alembic_version"
_FOR_GOOD: Final = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|not permitted to log in"
    r'|(database|role) ".*" does not exist|permission denied for database'
)
"""libpq tells no SQLSTATE of a refused connection."""
_BOUND_S: Final = 3.0
_AGAIN_S: Final = 0.25
_SAY_S: Final = 5.0


async def revision_of(tx: Tx) -> str | None:
    """Return the revision of the schema that a session sees; None: there is none."""
    found = await tx.first(INSTALLED)
    row = await tx.first(VERSION) if found and found["installed"] else None
    return None if row is None else str(row["version_num"])


async def awaited_revision(url: str, stop: asyncio.Event) -> str | None:
    """Return the revision of the database once that answers, or None when `stop` is set.

    Raises `Invalid` for an empty database, and for a refusal that waiting does not mend.
    """
    said_at = float("-inf")
    while not stop.is_set():
        try:
            return await _revision(url)
        except (Unavailable, OutcomeUnknown) as error:
            if _FOR_GOOD.search(str(error)):
                raise Invalid(f"the database refuses us: {error}") from error
            if boottime() - said_at > _SAY_S:
                said_at = boottime()
                log.warning("waiting for the database: %s", error)
        with suppress(TimeoutError):
            async with asyncio.timeout(_AGAIN_S):
                await stop.wait()
    return None


async def _revision(url: str) -> str:
    connection = await connect(url, name="engine_pg start")
    try:
        revision = await revision_of(Tx(connection, bound_s=_BOUND_S))
    finally:
        await connection.close()
    if revision is None:
        raise Invalid("the database is empty: run `engine-pg db upgrade` first")
    return revision
