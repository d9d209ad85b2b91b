"""One statement on one connection: never cut short, never waited for without bound.

psycopg answers a cancelled coroutine by cancelling the statement; a commit that waits for its
standby is then reported as done while no standby has it. So statements end by themselves, or, past
their bound, by shutting the socket down: nothing in libpq helps against a server that froze.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

import psycopg

from engine_pg.db.faults import translated
from engine_pg.supervisor import uninterrupted

T = TypeVar("T")

KEEPALIVE: Final[dict[str, int | str]] = {
    "connect_timeout": 3,
    "target_session_attrs": "read-write",  # a standby proves nothing
    "keepalives": 1,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 4000,  # keepalive never fires while data is unacknowledged
}
"""Connection parameters that find a vanished server in seconds instead of hours."""


def sever(connection: psycopg.AsyncConnection[Any]) -> None:
    """Shut the socket down: whoever waits for an answer gets an error now."""
    with (
        suppress(psycopg.Error, OSError),  # it is closed already: nothing to shut down
        socket.socket(fileno=os.dup(connection.fileno())) as sock,
    ):
        sock.shutdown(socket.SHUT_RDWR)


async def bounded(
    connection: psycopg.AsyncConnection[Any],
    statement: Coroutine[Any, Any, T],
    bound_s: float,
) -> T:
    """Await a statement, shielded and bounded; errors come from `engine_pg.errors`."""
    fuse = asyncio.get_running_loop().call_later(bound_s, sever, connection)
    try:
        return await uninterrupted(statement, bound_s, partial(sever, connection))
    except psycopg.Error as error:
        raise translated(error) from error
    finally:
        fuse.cancel()
