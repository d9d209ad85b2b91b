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
from dataclasses import dataclass
from typing import Final, LiteralString

from engine_pg.clock import boottime
from engine_pg.db.database import connect
from engine_pg.db.tx import Tx
from engine_pg.errors import Invalid, OutcomeUnknown, Unavailable

log = logging.getLogger(__name__)

INSTALLED: Final[LiteralString] = "select to_regclass('alembic_version') is not null as installed"
VERSION: Final[LiteralString] = "select min(version_num) as version_num from alembic_version"
DECLARED: Final[LiteralString] = "select to_regclass('schema_serves') is not null as declared"
SERVES: Final[LiteralString] = "select oldest from schema_serves"
_FOR_GOOD: Final = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|not permitted to log in"
    r'|(database|role) ".*" does not exist|permission denied for database'
)
"""libpq tells no SQLSTATE of a refused connection."""
_BOUND_S: Final = 3.0
_AGAIN_S: Final = 0.25
_SAY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Schema:
    """What a database says of its schema: its revision, and the oldest that it still serves."""

    revision: str
    serves: str | None = None

    def check(self, needed: str, known: set[str]) -> None:
        """Raise `Invalid` unless a version works on it that needs and knows these revisions."""
        if self.revision in known:
            if self.revision >= needed:
                return
            raise Invalid(
                f"the database is at revision {self.revision}, this engine needs {needed}:"
                " run `engine-pg db upgrade`"
            )
        if self.serves is None or self.serves > needed:
            served = "" if self.serves is None else f", which serves engines from {self.serves} on"
            raise Invalid(
                f"the database is at revision {self.revision}{served}; this engine is older and"
                f" knows {needed}: install the release that migrated it (a schema is not taken"
                " back under running nodes)"
            )
        log.warning(
            "the schema is newer (%s) than this engine (%s), and still serves it: upgrade soon",
            self.revision,
            needed,
        )


async def revision_of(tx: Tx) -> str | None:
    """Return the revision of the schema that a session sees; None: there is none."""
    found = await tx.first(INSTALLED)
    row = await tx.first(VERSION) if found and found["installed"] else None
    return row["version_num"] if row else None


async def awaited_schema(url: str, stop: asyncio.Event) -> Schema | None:
    """Return what the database says of its schema once it answers, or None when `stop` is set.

    Raises `Invalid` for an empty database, and for a refusal that waiting does not mend.
    """
    said_at = float("-inf")
    while not stop.is_set():
        try:
            return await _schema(url)
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


async def _schema(url: str) -> Schema:
    connection = await connect(url, name="engine_pg start")
    try:
        tx = Tx(connection, bound_s=_BOUND_S)
        revision = await revision_of(tx)
        declared = await tx.first(DECLARED)
        serves = await tx.first(SERVES) if declared and declared["declared"] else None
    finally:
        await connection.close()
    if revision is None:
        raise Invalid("the database is empty: run `engine-pg db upgrade` first")
    return Schema(revision, None if serves is None else str(serves["oldest"]))
