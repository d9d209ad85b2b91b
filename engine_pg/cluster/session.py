"""The lock session: one connection on which a member renews its lease and holds all its locks.

While one statement is under way, operations collect; the next statement carries them all, in
order, under one commit. It may go before the one under way is answered. A synchronous batch is a
renewal, so a heartbeat never queues behind a batch. Any error, warning or lost reply ends the
session, which is then *resumed* under the next number: what was in flight is sent again, what the
member holds is held on under the same tokens.

Trust is counted from before a renewal was sent, on a clock that goes on while the machine sleeps.

Does not promise: that a member which is not `trusted` has lost anything. It only may not act.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, LiteralString

from engine_pg.clock import Clock, boottime
from engine_pg.cluster.batch import BATCH, Answers, Batch, Sent
from engine_pg.cluster.connection import SessionConnection
from engine_pg.cluster.heartbeats import Heartbeats
from engine_pg.cluster.measures import Measures
from engine_pg.cluster.members import JOIN, LOOK, RENEW, RESUME, reply_of
from engine_pg.cluster.ops import Identity, Owners, Part
from engine_pg.cluster.outbox import MAX_BATCH, Outbox
from engine_pg.cluster.pace import Pace
from engine_pg.cluster.trust import Trust
from engine_pg.db.faults import SessionSuperseded
from engine_pg.db.tx import Record
from engine_pg.errors import DatabaseAway, EngineError, MemberEnded, OutcomeUnknown

log = logging.getLogger(__name__)

_LOST: Final = (DatabaseAway, OutcomeUnknown, SessionSuperseded)
_PATIENCE: Final = 0.4  # of a ttl, for one statement
_EARLY_S: Final = 1e-6  # so much too early a timer may wake us


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
        measures: Measures | None = None,
        clock: Clock = boottime,
    ) -> None:
        super().__init__(ttl_s=ttl_s, margin_s=margin_s, clock=clock)
        self.identity = identity
        self.measures = measures or Measures()
        self._url = url
        self.look_s = min(heartbeat_s / 2, ttl_s / 20)
        self._heartbeats = Heartbeats(heartbeat_s, look_s=self.look_s, phase=identity.phase)
        self._owners = owners
        self._connection: SessionConnection | None = None
        self._number = 1
        self._outbox = Outbox()
        self._work = asyncio.Event()
        self._renew_at = 0.0
        self._look_at = 0.0
        self.looks_often = True  # between its renewals as well
        self._seen = ""  # by the last look: what did not change since is not told again
        self._pace = Pace()
        self._answers = Answers()  # of the last batch: told while the next one is under way
        self._answered_at = 0.0
        self._ahead: Sent | None = None  # the next batch, sent before the last was answered

    def submit(self, part: Part) -> None:
        """Put an operation into the next batch."""
        if self.ended is not None:
            part.fail(self.ended)
            return
        self._outbox.put(part)
        self._work.set()

    def observe_soon(self) -> None:
        """Look at the other members with the next batch, which goes at once."""
        self._look_at = 0.0
        self._work.set()

    async def join(self) -> None:
        """Become a member: its row, its first lease, the first session."""
        sent_at = self.clock()
        connection = await self._open()
        try:
            await connection.refuse_sharing(self._url)
            await connection.ask(JOIN, self.identity.params() | {"ttl_s": self.ttl_s})
        except BaseException:
            await connection.close()
            raise
        self._connection = connection
        self._renewed(sent_at, self._heartbeats.first_s)

    def leave(self) -> None:
        """Carry nothing more: the member ends itself."""
        self._end(MemberEnded("the member left"))
        self._work.set()

    async def run(self) -> None:
        """Carry batches until the member ends; raises `MemberEnded`."""
        try:
            while self.ended is None:
                if (sent := self._ahead or await self._next()) is not None:
                    self._ahead = None
                    await self._carry(sent)
            raise self.ended
        except MemberEnded as error:
            self._end(error)
            raise
        finally:
            self._outbox.put_first(self._taken_back())
            self._end(self.ended or MemberEnded("the member stopped"))
            await self._drop()

    async def _next(self) -> Sent | None:
        """Wait until there is something to send, and send it."""
        await self._pace.tell_first(self._answers, len(self._outbox), MAX_BATCH)
        if not self._outbox:
            self._answers.tell()
        left_s = min(self._renew_at, self._look_at) - self.clock()
        if not self._outbox and left_s > _EARLY_S:
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._work.wait()
        return self._send()

    def _send(self) -> Sent | None:
        """Send what waits, or what is due without it; None: nothing is."""
        self._work.clear()
        batch = Batch(self._outbox.gather(), salt=self.identity.salt)
        sent_at = self.clock()
        due = sent_at + _EARLY_S
        observe = due >= min(self._look_at, self._renew_at)
        sync = due >= self._renew_at or batch.sync
        if not (batch.parts or observe or sync):
            return None
        # Every renewal looks; between two of them the counters will do, unless somebody rang.
        rung = self._look_at <= 0
        if observe:  # a ring from now on asks for another
            period_s = self._heartbeats.period_s
            self._look_at = sent_at + (self.look_s if self.looks_often else period_s)
        if not (batch.parts or rung):
            return Sent(batch, sent_at, sync, None)
        asking = self._ask_batch(batch, sync=sync, observe=observe, news=sync or rung)
        reply = asyncio.create_task(asking)  # noqa: TID251 - it ends with its connection
        reply.add_done_callback(self._replied)
        return Sent(batch, sent_at, sync, reply)

    def _replied(self, reply: asyncio.Task[Record]) -> None:
        self._work.set()
        if not reply.cancelled():
            reply.exception()  # seen, though nobody may wait for it any more

    async def _carry(self, sent: Sent) -> None:
        """Wait for the answer of what was sent, and see to it."""
        parts = sent.batch.parts
        try:
            reply = await self._answer(sent)
        except (MemberEnded, asyncio.CancelledError):
            self._outbox.put_first([*parts, *self._taken_back()])
            raise
        except EngineError as error:
            log.warning("lock session lost: %s", error)
            self._outbox.put_back(self._taken_back(), error, lost=True)
            self._outbox.put_back(parts, error, lost=isinstance(error, _LOST))
            await self._resume()
            return
        now = self.clock()
        if sent.sync:
            self._renewed(sent.at, self._heartbeats.next_s(reply.get("at")))
        self.measures.batch(len(parts), took_s := now - max(sent.at, self._answered_at))
        self._answered_at = now
        if worked_s := reply.get("worked_s"):
            self._pace.committed(took_s - worked_s)
        self._take(sent.batch, reply)

    async def _answer(self, sent: Sent) -> Record:
        """While it is under way, tell what the last one was answered, and send the next one.

        All are told before anything else becomes of them: a resume lists what is held.
        """
        if sent.reply is None:
            return await self._beat(renew=sent.sync)
        await asyncio.sleep(0)  # it has gone then
        self._answers.tell()
        while not sent.reply.done():
            if self._ahead is None and self._pace.overlaps(self._outbox.together):
                self._ahead = self._send()
            self._work.clear()
            await self._work.wait()
        return sent.reply.result()

    def _taken_back(self) -> Sequence[Part]:
        """Return what was sent ahead: its session is over, whatever became of it."""
        ahead, self._ahead = self._ahead, None
        return ahead.batch.parts if ahead else ()

    def _take(self, batch: Batch, reply: Record) -> None:
        """Tell the owners at once, and those who asked in good time."""
        self._answers = answers = batch.answers(reply)
        if batch.tells:
            self._owners.changed()
        if reply["ring"]:
            answers.tell()
            self._owners.ring(reply["ring"])
        if view := reply["view"]:
            answers.tell()
            self._seen = view.get("seen", self._seen)
            self._owners.observed(view)

    async def _beat(self, *, renew: bool) -> Record:
        """Renew and look, or only look; a whole batch follows when there is more to it."""
        row = await self._ask(RENEW if renew else LOOK, {})
        if not row["complete"]:
            return await self._ask_batch(Batch([]), sync=renew, observe=True, news=renew)
        if renew and row["seen"] != self._seen:
            return await self._ask_batch(Batch([]), sync=False, observe=True, news=True)
        return reply_of(row)

    async def _ask_batch(self, batch: Batch, *, sync: bool, observe: bool, news: bool) -> Record:
        seen = self._seen if news else None
        params = batch.params() | {"sync": sync, "observe": observe, "seen": seen}
        return (await self._ask(BATCH, params))["reply"]

    async def _ask(self, query: LiteralString, params: Record) -> Record:
        if self._connection is None:
            raise OutcomeUnknown("there is no session")
        who = {"member": self.identity.member_id, "session": self._number}
        # Not a whole ttl: who lost his connection in silence still comes back before he is ended.
        return await self._connection.ask(query, params | who, self.ttl_s * _PATIENCE)

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
            delay_s = min(delay_s * 1.5, 0.15)  # a refusal is cheap: `Lookouts`

    async def _try_resume(self) -> None:
        connection = await self._open()
        try:
            sent_at = self.clock()
            who = {"member": self.identity.member_id, "session": self._number}
            params = who | self._owners.holdings().params()
            reply = (await connection.ask(RESUME, params))["reply"]
        except BaseException:
            await connection.close()
            raise
        self._connection = connection
        self.measures.resumed()
        self._look_at = 0.0
        self._seen = ""  # a crash may have taken back what we saw
        self._renewed(sent_at, self._heartbeats.first_s)
        self._owners.resumed(reply["grants"])
        log.info(
            "lock session resumed as number %d with %d grants", self._number, len(reply["grants"])
        )

    async def _open(self) -> SessionConnection:
        return await SessionConnection.open(self._url, node=self.identity.node, ttl_s=self.ttl_s)

    async def _drop(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    def _renewed(self, sent_at: float, next_s: float) -> None:
        now = self.clock()
        self.measures.renewal(now - sent_at)
        if 0 < self.trusted_until < now:
            self.measures.paused(now - self.trusted_until)
        self.trust_from(sent_at)
        self._renew_at = sent_at + next_s
        self._owners.renewed(sent_at, now)

    def _end(self, error: MemberEnded) -> None:
        self._answers.tell()
        self.end(error)
        self._owners.ended(error)
        self._outbox.end(error)
