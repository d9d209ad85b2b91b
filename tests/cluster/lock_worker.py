"""One member in a process of its own: does what the lines on its input say, tells what came of it.

    python lock_worker.py DATABASE_URL NODE [SINGLETON ...]

A line is a JSON object: `do` says what, `id` which request is meant. Times are of CLOCK_BOOTTIME,
which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Coroutine
from typing import Any
from uuid import UUID

from engine_pg.clock import boottime
from engine_pg.cluster.claims import Claim
from engine_pg.cluster.fence import Fence
from engine_pg.cluster.keys import LockKey, Mode, Wanted
from engine_pg.cluster.leaders import Leadership
from engine_pg.cluster.locks import Hold, Reason
from engine_pg.cluster.membership import Lease, Membership
from engine_pg.cluster.ops import Identity
from engine_pg.db.database import Database
from engine_pg.db.listener import Doorbells
from engine_pg.errors import EngineError, MemberEnded
from engine_pg.ids import new_id

LEASE = Lease(ttl_s=2.0, margin_s=0.2, heartbeat_s=0.2)
KIND = "stateful"
WRITE = "insert into witness (id, mode, token) values (%(id)s, %(mode)s, %(token)s)"


def say(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


class Worker:
    def __init__(self, membership: Membership, group: asyncio.TaskGroup) -> None:
        self.membership = membership
        self.group = group
        self.asking: dict[int, asyncio.Task[None]] = {}
        self.holds: dict[int, Hold] = {}
        self.claimed: dict[int, Claim] = {}

    async def obey(self, lines: asyncio.StreamReader) -> None:
        while line := await lines.readline():
            order = json.loads(line)
            do, number = order.pop("do"), order.pop("id")
            getattr(self, do)(number, **order)

    def acquire(self, number: int, keys: list[list[str]], wait_s: float | None) -> None:
        self._start(number, self._acquire(number, wishes(keys), wait_s))

    def run(self, number: int, command: str, keys: list[list[str]]) -> None:
        """Claim a command that is new, and take locks for it."""
        self._start(number, self._run(number, UUID(command), wishes(keys)))

    def adopt(self, number: int, command: str) -> None:
        """Claim a command together with the grants that stand for it."""
        self._start(number, self._adopt(number, UUID(command)))

    def finish(self, number: int) -> None:
        say(id=number, until=boottime())
        self.membership.claims.finish(self.claimed[number])

    def _start(self, number: int, request: Coroutine[Any, Any, None]) -> None:
        asking = self.group.create_task(request)
        asking.add_done_callback(  # even if it was cancelled before it began
            lambda done: say(id=number, refused="Cancelled") if done.cancelled() else None
        )
        self.asking[number] = asking

    def cancel(self, number: int) -> None:
        self.asking[number].cancel()

    def release(self, number: int) -> None:
        say(id=number, until=boottime())
        self.membership.locks.release(self.holds[number])

    def write(self, number: int) -> None:
        self.group.create_task(self._write(number))

    def sync(self, number: int) -> None:
        """Tell how far it has come: all that was said before, was said before this."""
        say(id=number, synced=True)

    async def _acquire(self, number: int, wanted: list[Wanted], wait_s: float | None) -> None:
        try:
            hold = await self.membership.locks.acquire(*wanted, wait_s=wait_s)
        except EngineError as error:
            say(id=number, refused=type(error).__name__)
        else:
            self._granted(number, hold)

    async def _run(self, number: int, command_id: UUID, wanted: list[Wanted]) -> None:
        claims = self.membership.claims
        try:
            claim = await claims.claim(command_id)
            assert claim is not None, "nobody else knows of it"
            reason = Reason("running", command_id=command_id)
            try:
                hold = await self.membership.locks.acquire(*wanted, reason=reason)
            except EngineError:
                claims.finish(claim)
                raise
        except EngineError as error:
            say(id=number, refused=type(error).__name__)
        else:
            claim.holds.append(hold)
            self.claimed[number] = claim
            self._granted(number, hold)

    async def _adopt(self, number: int, command_id: UUID) -> None:
        try:
            claim = await self.membership.claims.claim(command_id)
        except EngineError as error:
            say(id=number, refused=type(error).__name__)
            return
        if claim is None:
            say(id=number, refused="Claimed")
            return
        self.claimed[number] = claim
        [hold] = claim.holds
        self._granted(number, hold)

    def _granted(self, number: int, hold: Hold) -> None:
        self.holds[number] = hold
        grants = [(each.key.id, each.mode, each.token) for each in hold.grants]
        say(id=number, granted=boottime(), grants=grants)
        hold.when_lost(lambda: self._lost(number))

    def _lost(self, number: int) -> None:
        until = min(boottime(), self.membership.session.trusted_until)
        say(id=number, lost=str(self.holds[number].lost), until=until)
        # What stops because its lock was broken lets go of it; an ended member has nothing to give.
        asyncio.get_running_loop().call_soon(self.membership.locks.release, self.holds[number])

    async def _write(self, number: int) -> None:
        grants = self.holds[number].grants
        try:
            async with self.membership.fencing.tx(Fence(grants)) as tx:
                for each in grants:
                    await tx.run(WRITE, {"id": each.key.id, "mode": each.mode, "token": each.token})
        except EngineError as error:
            say(id=number, wrote=type(error).__name__)
        else:
            say(id=number, wrote="")


def wishes(keys: list[list[str]]) -> list[Wanted]:
    return [Wanted(LockKey(KIND, key), Mode(mode)) for key, mode in keys]


async def lead(leadership: Leadership) -> None:
    """Tell from when and until when this process believes that it leads."""
    what = {"id": 0, "leads": leadership.name, "term": leadership.term}
    say(**what, at=boottime())
    try:
        await asyncio.Event().wait()
    finally:
        say(**what, until=min(boottime(), leadership.session.trusted_until))


async def main(url: str, node: str, *singletons: str) -> None:
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    bells = Doorbells(url)
    async with Database(url, name=node, pool_max=3) as db:
        identity = Identity(new_id(), node)
        membership = Membership(db, identity, bells=bells, lease=LEASE)
        for name in singletons:
            membership.leaders.register(name, lead)
        await membership.join()
        say(id=0, joined=str(identity.member_id))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(bells.run())
                group.create_task(membership.run())
                await Worker(membership, group).obey(lines)
                raise EOFError
        except* MemberEnded as ended:
            say(id=0, ended=str(ended.exceptions[0]))
        except* EOFError:
            await membership.leave()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
