"""The lock session: one connection on which a member renews its lease and holds all its locks.

While one statement is under way, operations collect; the next statement carries them all, in
order, under one commit. A synchronous batch is a renewal, so a heartbeat never queues behind a
batch. Any error, warning or lost reply ends the session, which is then *resumed* under the next
number: what was in flight is sent again, what the member holds is held on under the same tokens.

Trust is counted from before a renewal was sent, on a clock that goes on while the machine sleeps.

Does not promise: that a member which is not `trusted` has lost anything. It only may not act.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Final, LiteralString

import psycopg
from psycopg.types.json import Jsonb

from engine_pg.clock import Clock, boottime
from engine_pg.cluster.ops import Counters, Identity, Op, Owners
from engine_pg.cluster.trust import Trust
from engine_pg.db.database import connect
from engine_pg.db.faults import SessionSuperseded
from engine_pg.db.tx import Connection, Record
from engine_pg.db.wire import bounded
from engine_pg.errors import DatabaseAway, EngineError, MemberEnded, OutcomeUnknown

log = logging.getLogger(__name__)

SETTINGS: Final = """
select set_config('idle_session_timeout', %(ttl_ms)s, false),
       set_config('client_connection_check_interval', '500ms', false),
       set_config('lock_timeout', '2s', false),
       set_config('statement_timeout', '0', false),
       set_config('synchronous_commit', 'on', false)
"""
JOIN: Final = """
select member_join(%(member)s, %(node)s, make_interval(secs => %(ttl_s)s),
                   %(address)s, %(version)s) as epoch_id
"""
BATCH: Final = (
    "select cluster_batch(%(member)s, %(session)s, %(sync)s, %(observe)s, %(ops)s) as reply"
)
RESUME: Final = """
select member_resume(%(member)s, %(session)s, %(held)s, %(commands)s::uuid[],
                     %(leaderships)s) as reply
"""
MAX_BATCH: Final = 256


class LockSession(Trust):
    """The lock session of one member, resumed as often as need be until the member ends."""

    def __init__(
        self,
        url: str,
        identity: Identity,
        *,
        ttl_s: float,
        margin_s: float,
        heartbeat_s: float,
        owners: Owners,
        clock: Clock = boottime,
    ) -> None:
        super().__init__(ttl_s=ttl_s, margin_s=margin_s, clock=clock)
        self.identity = identity
        self.counters = Counters()
        self._url = url
        self._heartbeat_s = heartbeat_s
        self._owners = owners
        self._connection: Connection | None = None
        self._number = 1
        self._queue: deque[Op] = deque()
        self._work = asyncio.Event()
        self._renew_at = 0.0
        self._look_at = 0.0
        self._singly = 0  # operations that go one by one: one of them fails its batch
        self._warnings: list[str] = []

    def submit(self, op: Op) -> None:
        """Put an operation into the next batch."""
        if self.ended is not None:
            op.fail(self.ended)
            return
        self._queue.append(op)
        self._work.set()

    def observe_soon(self) -> None:
        """Look at the other members with the next batch, which goes at once."""
        self._look_at = 0.0
        self._work.set()

    async def join(self) -> None:
        """Become a member: its row, its first lease, the first session."""
        sent_at = self._clock()
        connection = await self._open()
        member = self.identity
        params = {
            "member": member.member_id,
            "node": member.node,
            "ttl_s": self.ttl_s,
            "address": member.address,
            "version": member.version,
        }
        try:
            await self._ask(connection, JOIN, params)
        except BaseException:
            await connection.close()
            raise
        self._connection = connection
        self._renewed(sent_at)

    def leave(self) -> None:
        """Carry nothing more: the member ends itself."""
        self._end(MemberEnded("the member left"))
        self._work.set()

    async def run(self) -> None:
        """Carry batches until the member ends; raises `MemberEnded`."""
        try:
            while self.ended is None:
                await self._carry(await self._collect())
            raise self.ended
        except MemberEnded as error:
            self._end(error)
            raise
        finally:
            if self.ended is None:
                self._end(MemberEnded("the member stopped"))
            if self._connection is not None:
                await self._connection.close()

    async def _collect(self) -> list[Op]:
        left_s = min(self._renew_at, self._look_at) - self._clock()
        if not self._queue and left_s > 0:
            try:
                async with asyncio.timeout(left_s):
                    await self._work.wait()
            except TimeoutError:
                pass
        self._work.clear()
        size = min(len(self._queue), 1 if self._singly else MAX_BATCH)
        self._singly = max(0, self._singly - size)
        return [self._queue.popleft() for _ in range(size)]

    async def _carry(self, batch: list[Op]) -> None:
        sent_at = self._clock()
        observe = sent_at >= self._look_at
        sync = sent_at >= self._renew_at or any(op.sync for op in batch)
        if not (batch or observe or sync):
            return
        try:
            reply = await self._send(batch, sync=sync, observe=observe)
        except MemberEnded:
            self._queue.extendleft(reversed(batch))
            raise
        except EngineError as error:
            log.warning("lock session lost: %s", error)
            self._send_again(batch, error)
            await self._resume()
            return
        if sync:
            self._renewed(sent_at)
        self._deal_out(batch, reply)
        if observe:  # twice as often as renewals: a counter that stands still is seen sooner
            self._look_at = sent_at + self._heartbeat_s / 2
            self._owners.observed(reply["view"])

    def _deal_out(self, batch: list[Op], reply: Record) -> None:
        self.counters.batches += 1
        self.counters.operations += len(batch)
        for op, result in zip(batch, reply["results"], strict=True):
            op.settle(result)
        if self._queue:
            self._work.set()

    def _send_again(self, batch: list[Op], error: EngineError) -> None:
        """Queue a failed batch for the next session; what fails alone is not tried again."""
        lost = isinstance(error, DatabaseAway | OutcomeUnknown | SessionSuperseded)
        self._singly = 0 if lost else len(batch)
        for op in reversed(batch):
            if op.repeat and (lost or len(batch) > 1):
                self._queue.appendleft(op)
            else:
                op.fail(error)

    async def _send(self, batch: list[Op], *, sync: bool, observe: bool) -> Record:
        if self._connection is None:
            raise OutcomeUnknown("there is no session")
        params = {
            "member": self.identity.member_id,
            "session": self._number,
            "sync": sync,
            "observe": observe,
            "ops": Jsonb([op.body for op in batch]),
        }
        # Not a whole ttl: who lost his connection in silence still comes back before he is ended.
        return (await self._ask(self._connection, BATCH, params, self.ttl_s / 2))["reply"]

    async def _resume(self) -> None:
        """Take a new connection and everything that the member holds onto it; until it ends."""
        delay_s = 0.05
        while True:
            await self._drop()
            self._number += 1  # each try its own: one that thaws late is refused
            try:
                await self._try_resume()
            except MemberEnded:
                raise
            except EngineError as error:
                log.info("resume failed, trying again: %s", error)
            else:
                return
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 1.5, 0.5)

    async def _try_resume(self) -> None:
        connection = await self._open()
        try:
            sent_at = self._clock()
            holdings = self._owners.holdings()
            params = {
                "member": self.identity.member_id,
                "session": self._number,
                "held": Jsonb(list(holdings.grants)),
                "commands": list(holdings.commands),
                "leaderships": Jsonb(list(holdings.leaderships)),
            }
            reply = (await self._ask(connection, RESUME, params))["reply"]
        except BaseException:
            await connection.close()
            raise
        self._connection = connection
        self.counters.resumes += 1
        self._look_at = 0.0
        self._renewed(sent_at)
        self._owners.resumed(reply["grants"])
        log.info(
            "lock session resumed as number %d with %d grants", self._number, len(reply["grants"])
        )

    async def _open(self) -> Connection:
        connection = await connect(self._url, name=f"engine_pg lock session {self.identity.node}")
        connection.add_notice_handler(self._notice)
        try:
            # Near the ttl: a frozen process loses its session without anybody's help.
            await self._ask(connection, SETTINGS, {"ttl_ms": str(int(self.ttl_s * 1000))})
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _ask(
        self,
        connection: Connection,
        query: LiteralString,
        params: Record,
        bound_s: float | None = None,
    ) -> Record:
        """Run one statement; a warning makes its outcome unknown (a commit that was cut short)."""
        self._warnings.clear()
        statement = connection.execute(query, params)
        cursor = await bounded(connection, statement, bound_s or self.ttl_s)
        row = await cursor.fetchone()
        if self._warnings or row is None:
            raise OutcomeUnknown(f"the server warned: {', '.join(self._warnings)}")
        return row

    async def _drop(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    def _notice(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        if diagnostic.severity_nonlocalized == "WARNING":
            self._warnings.append(diagnostic.message_primary or "warning")

    def _renewed(self, sent_at: float) -> None:
        now = self._clock()
        self.trust_from(sent_at)
        self._renew_at = sent_at + self._heartbeat_s
        self.counters.renewal_s = now - sent_at
        self._owners.renewed(sent_at, now)

    def _end(self, error: MemberEnded) -> None:
        self.end(error)
        while self._queue:
            self._queue.popleft().fail(error)
