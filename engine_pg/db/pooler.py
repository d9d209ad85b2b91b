"""A pooler in the path: whether a session is its client's alone, or shared out by the transaction.

Locks and LISTEN belong to a session: behind a pooler that shares sessions out, they would be held
by whoever comes next. A pooler shows itself by the backend's number, of which it tells its clients
another one. Whether it shares is tried: while a second client is in a transaction, either that has
the backend that the first one just had, or the first one gets another. The pooler's other clients
may come in between, so that is tried several times.

Does not promise: to find a pooler that has no session left for the second client.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from engine_pg.db.database import connect
from engine_pg.db.tx import Connection
from engine_pg.db.wire import bounded
from engine_pg.errors import DatabaseAway, Invalid

BACKEND: Final = "select pg_backend_pid() as pid"
_BOUND_S: Final = 3.0
_TRIES: Final = 8


async def refuse_sharing(connection: Connection, url: str) -> None:
    """Raise `Invalid` when the session of a connection to `url` is shared with others."""
    if await _backend(connection) == connection.info.backend_pid:
        return  # no pooler, or one that changes nothing
    with suppress(DatabaseAway):
        other = await connect(url, name="engine_pg looks for a pooler")
        try:
            shared = await _are_shared(connection, other)
        finally:
            await other.close()
        if shared:
            raise Invalid(
                "the database's address leads to a pooler that shares sessions out by the"
                " transaction, and locks belong to a session: name the server's own address, or"
                " let the pooler pool by the session"
            )


async def _are_shared(connection: Connection, other: Connection) -> bool:
    for _ in range(_TRIES):
        pid = await _backend(connection)
        await bounded(other, other.execute("begin"), _BOUND_S)
        if await _backend(other) == pid or await _backend(connection) != pid:
            return True
        await bounded(other, other.execute("rollback"), _BOUND_S)
    return False


async def _backend(connection: Connection) -> int:
    cursor = await bounded(connection, connection.execute(BACKEND), _BOUND_S)
    row = await cursor.fetchone()
    return 0 if row is None else row["pid"]
