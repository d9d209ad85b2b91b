"""Doorbells: a NOTIFY says "look", never what to see.

One connection of a node listens; whoever waits gets an `asyncio.Event` per topic and looks for
himself, on the ring or, as a safety net, on his own slow poll. Rings of the node are coalesced and
sent after the commit: a NOTIFY inside a transaction takes one server-wide lock until it is flushed.

A listener that heard nothing for a while has itself rung by the other connection, and so tells all
others that they hear. Who answers but hears nothing is deaf: a transaction pooler in the path gives
him another session for each statement, and LISTEN stays with none. A socket that is half open does
not even answer.

Does not promise: that every ring arrives. After a reconnect all bells ring once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final
from weakref import WeakSet

import psycopg

from engine_pg.clock import boottime
from engine_pg.db.database import connect
from engine_pg.db.faults import translated
from engine_pg.db.tx import Connection
from engine_pg.db.wire import bounded
from engine_pg.errors import DatabaseAway, EngineError
from engine_pg.ids import new_id

log = logging.getLogger(__name__)

LISTEN: Final = "do $$ begin execute format('listen %I', cluster_channel()); end $$"
RING: Final = """
select pg_notify(cluster_channel(), topic) from unnest(%(topics)s::text[]) as t(topic)
"""
QUEUE: Final = "queue"
_BOUND_S: Final = 5.0
_GATHER_S: Final = 0.001
"""Commits that were flushed together are told together."""
_PACE_S: Final = 0.005

_Serve = Callable[[Connection], Awaitable[None]]


class Bell:
    """One waiter's bell: `wait` returns on a ring or after `poll_s`."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Wake the waiter."""
        self._event.set()

    async def wait(self, poll_s: float) -> bool:
        """Wait for a ring, `poll_s` at most; the bell is silent again before the caller looks."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(poll_s, 0.0)):
                await self._event.wait()
        rung = self._event.is_set()
        self._event.clear()
        return rung


class Probe:
    """A ring for nobody but the listener that asked for it."""

    def __init__(self) -> None:
        self.topic = f"probe/{new_id()}"
        self.sent_at = float("inf")


class Doorbells:
    """The bells of one node, over two connections: one listens, one rings."""

    def __init__(
        self,
        url: str,
        *,
        probe_s: float = 5.0,
        coalesce_s: float = 0.003,
        on_deaf: Callable[[], None] = lambda: None,
    ) -> None:
        self.deaf = False  # what is rung does not come back: everybody lives by his slow poll
        self._url = url
        self._probe_s = probe_s
        self._coalesce_s = coalesce_s
        self._on_deaf = on_deaf
        self._probe = Probe()
        self._heard = False  # anything, since the last look at it
        self._bells: dict[str, WeakSet[Bell]] = {}
        self._outgoing: set[str] = set()
        self._pending = asyncio.Event()
        self._soon: asyncio.TimerHandle | None = None
        self._rang_soon_at = 0.0

    def bell(self, *topics: str) -> Bell:
        """Return a new bell on the topics; it lives as long as somebody keeps it."""
        bell = Bell()
        for topic in topics:
            self._bells.setdefault(topic, WeakSet()).add(bell)
        return bell

    def ring(self, *topics: str) -> None:
        """Ring on every node, soon; here at once."""
        for topic in topics:
            self._ring_here(topic)
        self._outgoing.update(topics)
        self._pending.set()

    def ring_soon(self, *topics: str) -> None:
        """Ring here at once, and on every node together with what follows in a moment.

        For what happens all the time: each ring wakes every node.
        """
        for topic in topics:
            self._ring_here(topic)
        self._outgoing.update(topics)
        if self._soon is None:
            wait_s = max(_GATHER_S, self._rang_soon_at + _PACE_S - boottime())
            self._soon = asyncio.get_running_loop().call_later(wait_s, self._ring_now)

    def _ring_now(self) -> None:
        self._soon = None
        self._rang_soon_at = boottime()
        self._pending.set()

    async def run(self) -> None:
        """Listen and ring until cancelled, through every loss of a connection."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._forever(self._listen))
            group.create_task(self._forever(self._send))

    def _ring_here(self, topic: str) -> None:
        for bell in list(self._bells.get(topic, ())):
            bell.ring()

    async def _forever(self, serve: _Serve) -> None:
        delay_s = 0.1
        while True:
            try:
                connection = await connect(self._url, name="engine_pg doorbell")
                try:
                    delay_s = 0.1
                    await serve(connection)
                finally:
                    await connection.close()
            except EngineError as error:
                log.info("doorbell connection lost: %s", error)
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, 1.0)

    async def _listen(self, connection: Connection) -> None:
        await bounded(connection, connection.execute(LISTEN), _BOUND_S)
        for topic in list(self._bells):  # rings while nobody listened are lost: everybody looks
            self._ring_here(topic)
        self._heard = False
        try:
            while True:
                self._probe = Probe()
                if not self._heard:
                    self._outgoing.add(self._probe.topic)
                    self._pending.set()
                self._heard = False
                async for notify in connection.notifies(timeout=self._probe_s):
                    self._hear(notify.payload)
                if not self._heard:  # what was heard has shown that the connection lives
                    await bounded(connection, connection.execute("select 1"), _BOUND_S)
                    self._judge()
        except psycopg.Error as error:
            raise translated(error) from error

    def _hear(self, topic: str) -> None:
        self._heard = True
        self._ring_here(topic)
        if self.deaf:
            self.deaf = False
            log.warning("the doorbell is heard again")

    def _judge(self) -> None:
        """Raise when a probe that was sent a while ago has not come back, nor anything else."""
        if boottime() - self._probe.sent_at < self._probe_s / 2:
            return
        self._on_deaf()
        if not self.deaf:
            self.deaf = True
            log.warning(
                "the doorbell is not heard: a NOTIFY does not come back to who listens. Is there a"
                " transaction pooler in the path? Changes are seen with the delay of a slow poll"
            )
        raise DatabaseAway("the listener is deaf")

    async def _send(self, connection: Connection) -> None:
        """Ring at once; what follows within `coalesce_s` goes together."""
        sent_at = 0.0
        while True:
            await self._pending.wait()
            await asyncio.sleep(max(0.0, sent_at + self._coalesce_s - boottime()))
            self._pending.clear()
            topics, self._outgoing = self._outgoing, set()
            try:
                query = connection.execute(RING, {"topics": sorted(topics)})
                sent_at = boottime()
                await bounded(connection, query, _BOUND_S)
            except BaseException:
                self._outgoing |= topics
                self._pending.set()
                raise
            if self._probe.topic in topics:
                self._probe.sent_at = boottime()
