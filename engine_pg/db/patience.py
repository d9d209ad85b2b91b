"""A statement that is waited for while its server answers others: then it is commits that hang.

Who hangs up on a commit that waits for its standby leaves a process behind at the server that goes
on waiting, and who tries again leaves the next one. In a hang of minutes no connections are left.

Does not promise: an answer. Once others are not answered, or by another server, it is given up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any, TypeVar

import psycopg

from engine_pg.db.faults import translated
from engine_pg.db.hosts import HostConnection
from engine_pg.db.wire import KEEPALIVE, sever
from engine_pg.supervisor import Background, uninterrupted

T = TypeVar("T")


async def patient(
    connection: HostConnection, statement: Coroutine[Any, Any, T], bound_s: float, url: str
) -> T:
    """Await a statement as `bounded` does; past each bound on, while the server answers others."""
    async with Background() as background:
        background.start(_lose_patience(connection, bound_s, url), name="patience")
        try:
            return await uninterrupted(statement, bound_s, partial(sever, connection))
        except psycopg.Error as error:
            raise translated(error) from error


async def _lose_patience(connection: HostConnection, bound_s: float, url: str) -> None:
    while True:
        await asyncio.sleep(bound_s)
        if not await _answers_others(connection, url):
            sever(connection)
            return


async def _answers_others(connection: HostConnection, url: str) -> bool:
    """Tell whether whoever connects now comes to the same server, with the same history."""
    named: dict[str, Any] = {"application_name": "engine_pg does it answer"} | KEEPALIVE
    try:
        other = await HostConnection.connect(url, **named)  # bounded: some seconds
        try:
            return _place_of(other) == _place_of(connection)
        finally:
            await other.close()
    except psycopg.Error:
        return False


def _place_of(connection: HostConnection) -> tuple[str, int, int, int]:
    info = connection.info
    return info.host, info.port, connection.system, connection.timeline
