"""`python -m lab.writer URL JOURNAL NAME HOW`: commits numbers without a pause, and notes each.

HOW is `ours`, over the engine's own connections, or `plain`, as one would begin with psycopg: the
timeouts that libpq offers, and a thread that shuts the socket down when an answer takes too long.
Without the latter it would wait for a frozen server until that is thawed.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, LiteralString

import psycopg
from psycopg.conninfo import make_conninfo

from engine_pg.clock import boottime
from engine_pg.db.database import connect
from engine_pg.db.urls import libpq_url
from engine_pg.db.wire import bounded
from engine_pg.errors import EngineError
from lab.journal import Journal

TABLE: Final = """
create table if not exists lab_write (
  writer text not null, number bigint not null, primary key (writer, number)
)
"""
FOUND: Final = "select number from lab_write where writer = %s"
_INSERT: Final[LiteralString] = "insert into lab_write (writer, number) values (%s, %s)"
_PACE_S: Final = 0.02
_BOUND_S: Final = 2.0
_TIMEOUTS: Final = {
    "connect_timeout": 2,
    "tcp_user_timeout": 2000,
    "keepalives_idle": 1,
    "keepalives_interval": 1,
    "keepalives_count": 2,
    "target_session_attrs": "read-write",
}


class Writer:
    """Commits one number after the other; whatever is acknowledged is noted with its beginning."""

    def __init__(self, url: str, journal: Path, name: str) -> None:
        self._url = make_conninfo(libpq_url(url), **_TIMEOUTS)
        self._name = name
        self._journal = Journal(journal)
        self._numbers = itertools.count(1)

    async def ours(self) -> None:
        """Write as the engine does, until cancelled."""
        while True:
            with suppress(EngineError, psycopg.Error):
                connection = await connect(self._url, name="lab writer")
                try:
                    while True:
                        number, began = next(self._numbers), boottime()
                        insert = connection.execute(_INSERT, (self._name, number))
                        await bounded(connection, insert, _BOUND_S)
                        self._acknowledged(number, began)
                        await asyncio.sleep(_PACE_S)
                finally:
                    await connection.close()
            await asyncio.sleep(_PACE_S)

    def plain(self) -> None:
        """Write with nothing but psycopg, for ever."""
        while True:
            with (
                suppress(psycopg.Error),
                psycopg.connect(self._url, autocommit=True) as connection,
            ):
                while True:
                    number, began = next(self._numbers), boottime()
                    fuse = threading.Timer(_BOUND_S, _shut, (connection.fileno(),))
                    fuse.start()
                    try:
                        connection.execute(_INSERT, (self._name, number))
                    finally:
                        fuse.cancel()
                    self._acknowledged(number, began)
                    time.sleep(_PACE_S)
            time.sleep(_PACE_S)

    def _acknowledged(self, number: int, began: float) -> None:
        self._journal.note("acknowledged", number=number, began=began)


def _shut(descriptor: int) -> None:
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as wire:
        wire.shutdown(socket.SHUT_RDWR)


def main() -> None:
    """Write until killed."""
    url, journal, name, how = sys.argv[1:]
    writer = Writer(url, Path(journal), name)
    if how == "plain":
        writer.plain()
    else:
        asyncio.run(writer.ours())


if __name__ == "__main__":
    main()
