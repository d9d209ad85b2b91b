"""Connections to the writable server: all hosts are asked at once, the newest timeline wins.

A primary that was cut off from its standby still answers queries and grants advisory locks after
the standby was promoted. So once any connection of a process has seen a newer timeline, those to
older ones are severed, and none is opened there any more. A host that hangs costs a moment.

Does not promise: that the server is the right one while no other is in reach. Only a commit that
its standby acknowledged proves that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, Self, cast
from weakref import WeakSet

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import DictRow, dict_row
from typing_extensions import override

from engine_pg.clock import boottime
from engine_pg.db.addresses import located
from engine_pg.db.lookouts import Lookouts
from engine_pg.db.wire import sever
from engine_pg.supervisor import uninterrupted

ORIGIN: Final = """
select system_identifier as system, current_setting('transaction_read_only')::boolean as closed,
       case when pg_is_in_recovery() then 0 else
         ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::bigint
       end as timeline
  from pg_control_system()
"""
_READ_ONLY: Final = "session is read-only"  # as libpq says it
_BOUND_S: Final = 3.0
_GRACE_S: Final = 0.2
"""How long the other hosts may still answer once one has: theirs may be the newer timeline."""
_AGAIN_S: Final = 0.1
_LOOKED_S: Final = 0.5
"""Who has a lookout that is silent for so long connects."""


class HostConnection(psycopg.AsyncConnection[DictRow]):
    """A connection to the newest writable server among the hosts of its URL."""

    system = 0
    timeline = 0
    opened_at = 0.0
    posted = False  # it is a lookout: nobody closes it when its event loop ends before it

    @override
    def __del__(self, *given: Any) -> None:
        """Warn as ever of a connection that was forgotten; a lookout just goes."""
        if self.posted:
            self.pgconn.finish()
        else:
            super().__del__(*given)

    @classmethod
    @override
    async def connect(cls, conninfo: str = "", *, autocommit: bool = True, **kwargs: Any) -> Self:
        """Ask all hosts at once; raises the last refusal, or `ConnectionTimeout` when all hang."""
        parameters = conninfo_to_dict(conninfo, **kwargs)
        hosts = each_host(parameters)
        timelines = timelines_of(parameters)
        ways = [partial(cls._open, host, autocommit=autocommit) for host in hosts]
        race = Race(ways, timelines.is_news)
        try:
            await race.run()
            newest = race.newest()
            timelines.admit(newest)
            race.found.remove(newest)
        finally:
            for other in race.found:
                await other.close()
        return cast("Self", newest)

    @classmethod
    async def _open(cls, conninfo: str, *, autocommit: bool) -> HostConnection:
        writes = conninfo_to_dict(conninfo).get("target_session_attrs") == "read-write"
        anybody = make_conninfo(conninfo, target_session_attrs="any") if writes else conninfo
        anybody = await located(anybody)
        place = make_conninfo(anybody, application_name="")
        if writes and await _LOOKOUTS.closed(place):
            raise psycopg.OperationalError(_READ_ONLY)
        connection = await super().connect(anybody, autocommit=autocommit)
        try:
            connection.row_factory = dict_row
            connection.opened_at = boottime()
            row = await _origin_of(connection)
            connection.system, connection.timeline = row["system"], row["timeline"]
            if writes and row["closed"]:
                connection.posted = True
                _LOOKOUTS.post(place, connection)
                raise psycopg.OperationalError(_READ_ONLY)
        except BaseException:
            if not connection.posted:
                await connection.close()
            raise
        return connection


async def _origin_of(connection: HostConnection, bound_s: float = _BOUND_S) -> DictRow:
    """Ask a server where it is; who is cancelled meanwhile hangs up instead of asking for it."""
    hung_up = False

    def hang_up() -> None:
        nonlocal hung_up
        hung_up = True
        sever(connection)

    async def asked() -> DictRow | None:
        try:
            cursor = await connection.execute(ORIGIN)
        except psycopg.Error:
            if hung_up:
                return None  # nobody waits for it
            raise
        return await cursor.fetchone()

    fuse = asyncio.get_running_loop().call_later(bound_s, sever, connection)
    try:
        row = await uninterrupted(asked(), 0.0, hang_up)
    finally:
        fuse.cancel()
    assert row is not None
    return row


async def _is_closed(lookout: HostConnection) -> bool:
    return (await _origin_of(lookout, _LOOKED_S))["closed"]


_LOOKOUTS: Final = Lookouts(_is_closed)


class Race:
    """Several ways to connect, tried at once until all answered or the first has waited enough."""

    def __init__(
        self,
        ways: Sequence[Callable[[], Awaitable[HostConnection]]],
        is_news: Callable[[HostConnection], bool],
    ) -> None:
        self.found: list[HostConnection] = []
        self._ways = ways
        self._is_news = is_news
        self._silent = len(ways)
        self._answered = asyncio.Event()  # by every host: nobody is waited for any more
        self._refusal: psycopg.Error = psycopg.errors.ConnectionTimeout("no host answers")

    async def run(self) -> None:
        """Collect connections; bounded as a whole."""
        with suppress(TimeoutError):  # who is silent yet stays out
            async with asyncio.timeout(_BOUND_S) as bound, asyncio.TaskGroup() as group:
                for way in self._ways:
                    group.create_task(self._try(way, bound))

    def newest(self) -> HostConnection:
        """Return the connection to the newest timeline, or raise why there is none."""
        if not self.found:
            raise self._refusal
        return max(self.found, key=lambda each: each.timeline)

    async def _try(
        self, way: Callable[[], Awaitable[HostConnection]], bound: asyncio.Timeout
    ) -> None:
        """Connect; who refuses is asked again while another hangs: it may be promoted."""
        first = True
        while not bound.expired() and (first or not self._answered.is_set()):
            try:
                self.found.append(await way())
            except psycopg.Error as error:
                self._refusal = error
            self._silent -= first
            first = False
            if not self._silent:
                self._answered.set()
            if self.found:
                self._close_soon(bound, 0.0 if any(map(self._is_news, self.found)) else _GRACE_S)
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN_S):
                    await self._answered.wait()

    def _close_soon(self, bound: asyncio.Timeout, grace_s: float) -> None:
        """Leave the others a moment from the first connection on."""
        grace = asyncio.get_running_loop().time() + grace_s
        if not bound.expired():
            bound.reschedule(min(grace, bound.when() or grace))


class Timelines:
    """The newest timeline that a process has seen on some hosts, and its connections there."""

    def __init__(self) -> None:
        self._newest: dict[int, int] = {}
        self._open: WeakSet[HostConnection] = WeakSet()

    def is_news(self, connection: HostConnection) -> bool:
        """Say whether it is newer than what was seen: nobody else is waited for."""
        newest = self._newest.get(connection.system)
        return newest is not None and connection.timeline > newest

    def admit(self, connection: HostConnection) -> None:
        """Take a new connection in, severing older ones; refuse one that is itself too old."""
        system, timeline = connection.system, connection.timeline
        newest = self._newest.setdefault(system, timeline)
        if timeline < newest:
            raise psycopg.OperationalError(
                f"the server is on timeline {timeline}, and {newest} was seen: an old primary"
            )
        self._newest[system] = timeline
        for each in list(self._open):
            if each.system == system and each.timeline < timeline:
                sever(each)
        self._open.add(connection)


_PLACE: Final = ("host", "hostaddr", "port", "service")
_KNOWN: Final[dict[tuple[str, ...], Timelines]] = {}


def timelines_of(parameters: dict[str, Any]) -> Timelines:
    """Return what this process knows of the servers at a place, whoever connects and what for."""
    place = tuple(str(parameters.get(name) or "") for name in _PLACE)
    return _KNOWN.setdefault(place, Timelines())


def each_host(parameters: dict[str, Any]) -> list[str]:
    """Return one connection string for each host that the parameters name."""
    lists = {
        name: str(parameters[name]).split(",")
        for name in ("host", "hostaddr", "port")
        if parameters.get(name) is not None
    }
    count = max((len(lists.get(name, ())) for name in ("host", "hostaddr")), default=1) or 1
    return [
        make_conninfo("", **parameters | {name: _nth(words, n) for name, words in lists.items()})
        for n in range(count)
    ]


def _nth(words: list[str], n: int) -> str:
    return words[n] if len(words) > 1 else words[0]
