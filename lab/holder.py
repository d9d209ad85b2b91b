"""`python -m lab.holder URL JOURNAL NAME COUNT TTL_S ROLE`: a member that works under its locks.

It holds so many locks, and writes under one after the other, fenced; each such write is noted with
its token. ROLE is `keeper` or `heir`: all holders want one more lock. A keeper keeps it until its
member is ended; an heir gives it back as soon as it got it, which it notes, and asks again later.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, LiteralString

from benchmarks.members import member
from engine_pg.clock import boottime
from engine_pg.cluster.fence import Fence
from engine_pg.cluster.locks import Hold, LockKey, Wanted
from engine_pg.cluster.membership import Lease, Membership
from engine_pg.errors import EngineError, MemberEnded
from lab.journal import Journal

TABLE: Final = """
create table if not exists lab_work (
  holder text not null, number bigint not null, token bigint not null, primary key (holder, number)
)
"""
CONTESTED: Final = LockKey("lab", "contested")
_WORK: Final[LiteralString] = """
insert into lab_work (holder, number, token) values (%(holder)s, %(number)s, %(token)s)
"""
_PACE_S: Final = 0.02
_HEIR_PAUSE_S: Final = 1.0
_AT_ONCE: Final = 256


class Holder:
    """One member after the other, each with all the locks."""

    def __init__(self, url: str, journal: Path, name: str, *, count: int, heir: bool) -> None:
        self._url = url
        self._journal = Journal(journal)
        self._name = name
        self._keys = [Wanted(LockKey("lab", f"{name}/{number}")) for number in range(count)]
        self._heir = heir

    async def run(self, lease: Lease) -> None:
        """Live, and again when a life is over, until cancelled."""
        for life in itertools.count(1):
            try:
                async with (
                    member(self._url, f"{self._name} {life}", lease=lease) as membership,
                    asyncio.TaskGroup() as group,
                ):
                    group.create_task(self._contend(membership))
                    group.create_task(self._trust(membership))
                    holds = await self._take(membership)
                    await self._work(membership, holds)
            except* EngineError as errors:
                self._journal.note("ended", why=repr(errors.exceptions[0]))
            await asyncio.sleep(_PACE_S)

    async def _take(self, membership: Membership) -> Sequence[Hold]:
        room = asyncio.Semaphore(_AT_ONCE)

        async def take(wanted: Wanted) -> Hold:
            async with room:
                return await membership.locks.acquire(wanted, wait_s=None)

        async with asyncio.TaskGroup() as group:
            taking = [group.create_task(take(wanted)) for wanted in self._keys]
        holds = [each.result() for each in taking]
        tokens = sorted(hold.grants[0].token for hold in holds)
        member_id = str(membership.identity.member_id)
        self._journal.note("holds", member=member_id, tokens=tokens)
        return holds

    async def _work(self, membership: Membership, holds: Sequence[Hold]) -> None:
        """Write under each hold in turn; the member's end raises."""
        for number, hold in zip(itertools.count(), itertools.cycle(holds), strict=False):
            [grant] = hold.grants
            began = boottime()
            work = {"holder": str(membership.identity.member_id), "number": number}
            try:
                async with membership.fencing.tx(Fence(grants=hold.grants)) as tx:
                    await tx.run(_WORK, work | {"token": grant.token})
            except EngineError:  # a lease that ran out may be resumed
                if hold.lost is not None:
                    raise hold.lost from None
                await asyncio.sleep(_PACE_S)
                continue
            self._journal.note("worked", token=grant.token, began=began)
            await asyncio.sleep(_PACE_S)

    async def _contend(self, membership: Membership) -> None:
        while True:
            try:
                hold = await membership.locks.acquire(Wanted(CONTESTED), wait_s=None)
            except MemberEnded:
                raise
            except EngineError:
                await asyncio.sleep(_PACE_S)
                continue
            self._journal.note("got", token=hold.grants[0].token)
            if not self._heir:
                return
            membership.locks.release(hold)
            await asyncio.sleep(_HEIR_PAUSE_S)

    async def _trust(self, membership: Membership) -> None:
        """Note until when the member believes in itself, whenever that changes."""
        noted = 0.0
        while True:
            if noted != (noted := membership.session.trusted_until):
                self._journal.note("trusts", until=noted)
            await asyncio.sleep(_PACE_S)


def main() -> None:
    """Hold until killed."""
    url, journal, name, count, ttl_s, role = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    holder = Holder(url, Path(journal), name, count=int(count), heir=role == "heir")
    ttl = float(ttl_s)
    asyncio.run(holder.run(Lease(ttl, ttl / 10, ttl / 5)))


if __name__ == "__main__":
    main()
