"""One prepared statement on one connection, sent before its earlier answers have come.

psycopg's own pipeline takes an answer before it sends on, and its way to a single answer takes
longer than many a lock. So this one speaks libpq, by psycopg's public wrapper of it.

    send, sync ─┐  send, sync ─┐                 each sync ends a transaction of its own
                └─▶ answer     └─▶ answer        an answer counts when its sync is answered:
                                                 only then is it committed

Does not promise: that what was sent does not happen when its caller is cancelled, or when the
connection is lost. Nothing is ever cancelled; past its bound a connection is shut down.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, LiteralString

import psycopg
from psycopg import pq
from psycopg.errors import error_from_result
from psycopg.types.json import Jsonb

from engine_pg.db.faults import translated
from engine_pg.db.wire import sever
from engine_pg.errors import DatabaseAway, EngineError, OutcomeUnknown

_PARAMETER: Final = re.compile(r"%\((\w+)\)s")


@dataclass(slots=True)
class _Asked:
    future: asyncio.Future[bytes]
    fuse: asyncio.TimerHandle
    value: bytes | None = None
    error: EngineError | None = None


class Pipeline:
    """A statement that returns one value; its parameters are named as psycopg names them."""

    def __init__(
        self, connection: psycopg.AsyncConnection[Any], name: LiteralString, query: LiteralString
    ) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._name = name.encode()
        self._order: list[str] = _PARAMETER.findall(query)
        numbers = iter(range(1, len(self._order) + 1))
        self._query = _PARAMETER.sub(lambda _: f"${next(numbers)}", query).encode()
        self._loop = asyncio.get_running_loop()
        self._asked: deque[_Asked] = deque()
        self._warnings: list[str] = []
        self._socket: int | None = None
        self._writing = False
        self._nothing = 0
        connection.add_notice_handler(self._notice)

    def __len__(self) -> int:
        return len(self._asked)

    def ask(self, params: Mapping[str, object], bound_s: float) -> asyncio.Future[bytes]:
        """Send the statement now; the future is the text of its value, once it is committed.

        A warning makes the outcome unknown, as does a lost connection; other errors come from
        `engine_pg.errors`. Past the bound the connection is shut down.
        """
        future: asyncio.Future[bytes] = self._loop.create_future()
        try:
            self._send([encoded(params[name]) for name in self._order])
        except psycopg.Error as error:
            future.set_exception(translated(error))
            return future
        fuse = self._loop.call_later(bound_s, self._give_up, bound_s)
        self._asked.append(_Asked(future, fuse))
        return future

    def stop(self) -> None:
        """Listen no more; whoever waits is told that the answer did not come."""
        self._fail(DatabaseAway("the connection was closed"))

    def _give_up(self, bound_s: float) -> None:
        """Shut down a connection that has not answered in time; libpq sees the end at once."""
        sever(self._connection)
        self._read()
        self._fail(DatabaseAway(f"no answer within {bound_s:g} s"))

    def _send(self, values: list[bytes | None]) -> None:
        if self._pgconn.pipeline_status == pq.PipelineStatus.OFF:
            self._pgconn.enter_pipeline_mode()
            self._socket = self._pgconn.socket
            self._loop.add_reader(self._socket, self._read)
        if self._query:
            self._pgconn.send_prepare(self._name, self._query)
            self._query = b""
        self._pgconn.send_query_prepared(self._name, values)
        self._pgconn.pipeline_sync()
        self._write()

    def _write(self) -> None:
        """Send what the socket takes; the rest when it takes more."""
        if self._socket is None:
            return
        left = self._pgconn.flush()
        if left and not self._writing:
            self._loop.add_writer(self._socket, self._write_on)
        elif self._writing and not left:
            self._loop.remove_writer(self._socket)
        self._writing = bool(left)

    def _write_on(self) -> None:
        try:
            self._write()
        except psycopg.Error as error:
            self._fail(translated(error))

    def _read(self) -> None:
        if self._socket is None:
            return
        try:
            if not self._consume():  # last words: uvloop does not tell of an end behind them
                self._consume()
        except psycopg.Error as error:
            self._fail(translated(error))
            return
        if not self._asked:
            self._leave()

    def _consume(self) -> bool:
        """Take what the server has said; False: it was not the whole of an answer."""
        open_before = len(self._asked)
        self._pgconn.consume_input()
        while self._asked and not self._pgconn.is_busy():
            self._take(self._pgconn.get_result())
        return len(self._asked) < open_before

    def _take(self, result: pq.abc.PGresult | None) -> None:
        """Take the next thing that the server said about the oldest statement."""
        asked = self._asked[0]
        if result is None:
            self._nothing += 1
            if self._nothing > 2:  # one ends each statement; more, and the connection is dead
                raise psycopg.OperationalError("the connection was lost")
            return
        self._nothing = 0
        if result.status == pq.ExecStatus.PIPELINE_SYNC:
            self._answer(self._asked.popleft())
        elif result.status == pq.ExecStatus.TUPLES_OK:
            asked.value = result.get_value(0, 0)
        elif result.status != pq.ExecStatus.COMMAND_OK and asked.error is None:
            asked.error = translated(error_from_result(result))

    def _answer(self, asked: _Asked) -> None:
        warnings, self._warnings = self._warnings, []
        asked.fuse.cancel()
        if asked.future.done():
            return
        if asked.error is not None:
            asked.future.set_exception(asked.error)
        elif warnings or asked.value is None:
            warned = (
                f"the server warned: {', '.join(warnings)}" if warnings else "no value came back"
            )
            asked.future.set_exception(OutcomeUnknown(warned))
        else:
            asked.future.set_result(asked.value)

    def _fail(self, error: EngineError) -> None:
        self._listen_no_more()
        while self._asked:
            asked = self._asked.popleft()
            asked.fuse.cancel()
            if not asked.future.done():
                asked.future.set_exception(error)

    def _leave(self) -> None:
        """Leave the connection as psycopg wants it: nothing is under way."""
        self._listen_no_more()
        self._pgconn.exit_pipeline_mode()

    def _listen_no_more(self) -> None:
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket = None

    def _notice(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        if self._asked and diagnostic.severity_nonlocalized == "WARNING":
            self._warnings.append(diagnostic.message_primary or "warning")


def encoded(value: object) -> bytes | None:
    """Return a parameter as PostgreSQL reads it: arrays are text already."""
    if value is None:
        return None
    if isinstance(value, Jsonb):
        return json.dumps(value.obj).encode()
    if isinstance(value, bool):
        return b"true" if value else b"false"
    return str(value).encode()
