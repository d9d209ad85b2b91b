"""A lock client: one process, one member after the other, many coroutines under locks.

What it does under a lock it does at the witness, and now and then in the database by a fenced
write; what it leads it proves in the same two ways. SIGUSR1: release everything, stay a member.
SIGTERM: leave in order.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from chaos.history import History, Operation
from chaos.witness import Witness
from engine_pg.clock import boottime
from engine_pg.cluster.fence import Fence, Fencing
from engine_pg.cluster.leaders import Leadership
from engine_pg.cluster.locks import Hold, LockBusy, LockKey, Mode, Wanted
from engine_pg.cluster.membership import Lease, Membership
from engine_pg.cluster.ops import Identity
from engine_pg.cluster.session import LockSession
from engine_pg.db.database import Database
from engine_pg.db.listener import Doorbells
from engine_pg.errors import EngineError, MemberEnded, NotHeld, OutcomeUnknown, Unavailable
from engine_pg.ids import new_id
from engine_pg.supervisor import Background

KEYS = [LockKey("chaos", f"{number}") for number in range(24)]
ACTS = (1, 1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 4, 6, 30)  # the last one lasts for seconds
WAITS_S = (0.0, 0.0, 0.2, 1.0, 3.0, None)
LINGERING = 0.25  # of the fenced writes, so that faults find some half done
IDLE_S = 8.0  # longer than a lease: the fence is what is tested, not the server's patience
PULSE_S = 0.05
UNWELL_S = 0.2
LAST = "select token, count from chaos_register where key = %(key)s for update"
COUNT = """
insert into chaos_register (key, token, count) values (%(key)s, %(token)s, 1)
    on conflict (key) do update set token = excluded.token, count = chaos_register.count + 1
"""
WRITE = """
insert into chaos_write (write_id, key, token, member_id, previous, count)
values (%(id)s, %(key)s, %(token)s, %(member)s, %(previous)s, %(count)s)
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the conductor tells a worker."""

    name: str
    label: str  # of the process in the history: two may have one name
    url: str
    witness: str
    history: str
    seed: int
    ttl_s: float
    clients: int
    leaderships: int


class Worker:
    """The process."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._history = History(Path(plan.history), plan.label)
        self._db = Database(
            plan.url,
            name=f"chaos {plan.name}",
            pool_min=1,
            pool_max=10,
            idle_in_transaction_s=IDLE_S,
        )
        self._bells = Doorbells(plan.url)
        self._quiet = asyncio.Event()
        self._stop = asyncio.Event()
        self._dice = random.Random(f"{plan.seed}/{plan.name}/{boottime()}")

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, self._quiet.set)
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        async with self._db, Background() as background:
            background.start(self._bells.run(), name="doorbells")
            living = background.start(self._live(), name="member")
            await self._stop.wait()
            self._history.note("stopping")
            await asyncio.wait([living], timeout=8.0)

    async def _live(self) -> None:
        while not self._stop.is_set():
            try:
                await self._one_life()
            except* MemberEnded:
                self._history.note("ended")
            except* EngineError as errors:
                self._history.note("troubled", error=repr(errors.exceptions[0]))
            await asyncio.sleep(0.2)

    async def _one_life(self) -> None:
        plan = self._plan
        lease = Lease(plan.ttl_s, plan.ttl_s / 10, plan.ttl_s / 10)
        membership = Membership(
            self._db, Identity(new_id(), plan.name), bells=self._bells, lease=lease
        )
        for number in range(plan.leaderships):
            membership.leaders.register(f"lead/{number:02}", self._lead)
        await membership.join()
        self._history.note("joined", member=str(membership.identity.member_id))
        clients = [Client(self._history, plan, membership, self._dice) for _ in range(plan.clients)]
        async with asyncio.TaskGroup() as group:
            living = group.create_task(self._until_left(membership))
            pulse = group.create_task(self._pulse(membership.session, lease))
            acting = [group.create_task(client.run(self._quiet)) for client in clients]
            quiet = group.create_task(self._note_quiet(acting))
            await self._stop.wait()
            self._quiet.set()
            for each in (*acting, quiet):
                each.cancel()
            await asyncio.wait(acting)
            self._history.note("leaving")
            await membership.leave()
            self._history.note("left")
            living.cancel()
            pulse.cancel()

    async def _until_left(self, membership: Membership) -> None:
        try:
            await membership.run()
        except* MemberEnded:
            if not self._stop.is_set():
                raise

    async def _note_quiet(self, acting: list[asyncio.Task[None]]) -> None:
        await asyncio.wait(acting)
        self._history.note("quiet")

    async def _pulse(self, session: LockSession, lease: Lease) -> None:
        """Note when this process, or its renewals, are held up: it can't bury anybody then."""
        while True:
            before = boottime()
            await asyncio.sleep(PULSE_S)
            lag_s = boottime() - before - PULSE_S
            renewal_s = boottime() - (session.trusted_until - lease.ttl_s + lease.margin_s)
            if lag_s > UNWELL_S or renewal_s > lease.ttl_s / 3:
                self._history.note("unwell", lag_s=round(lag_s, 3), renewal_s=round(renewal_s, 3))

    async def _lead(self, leadership: Leadership) -> None:
        """Prove again and again that we lead."""
        name, term, session = leadership.name, leadership.term, leadership.session
        owner = str(session.identity.member_id)
        self._history.note("led", name=name, term=term, member=owner)
        acting = Acting(self._history, self._plan, session, self._dice)
        writes = int(name[-1]) % 2 == 0  # the others never wait for the database: they act on
        try:
            while True:
                await leadership.until_trusted()
                await acting.act(name, "exclusive", term, owner=f"{owner}/{term}")
                if writes and self._dice.random() < 0.2:
                    await acting.write(name, term, leadership.fence, self._fencing(session))
                await asyncio.sleep(self._dice.uniform(0.05, 0.3))
        finally:
            acting.close()
            self._history.note("unled", name=name, term=term, member=owner)

    def _fencing(self, session: LockSession) -> Fencing:
        return Fencing(self._db, session)


class Acting:
    """Acts under a right: at the witness, and by fenced writes."""

    def __init__(
        self, history: History, plan: Plan, session: LockSession, dice: random.Random
    ) -> None:
        self._history = history
        self._session = session
        self._dice = dice
        self._witness = Witness(plan.witness)

    async def act(self, key: str, mode: str, token: int, *, owner: str) -> None:
        """Act at the witness if the member believes in itself at this very moment."""
        self._session.check()
        await self._witness.act(
            key=key,
            mode=mode,
            token=token,
            owner=owner,
            member=str(self._session.identity.member_id),
            checked=boottime(),
            trusted_until=self._session.trusted_until,
            work_s=round(self._dice.uniform(0.001, 0.03), 4),
        )

    async def write(self, key: str, token: int, fence: Fence, fencing: Fencing) -> None:
        """Write under a fence; whatever is acknowledged must be found at the end."""
        member = self._session.identity.member_id
        params = {"id": new_id(), "key": key, "token": token, "member": member}
        with self._history.operation("write", id=str(params["id"]), key=key, token=token) as op:
            try:
                async with fencing.tx(fence) as tx:
                    last = await tx.first(LAST, params) or {"token": None, "count": 0}
                    await tx.run(COUNT, params)
                    more = {"previous": last["token"], "count": last["count"] + 1}
                    await tx.run(WRITE, params | more)
                    if self._dice.random() < LINGERING:
                        await asyncio.sleep(self._dice.uniform(0.1, 1.0))
            except OutcomeUnknown as error:
                op.end("unknown", error=str(error))
                raise
            except EngineError as error:
                op.end("refused", error=repr(error))
                raise
            op.end("ok")

    def close(self) -> None:
        self._witness.close()


class Client:
    """One coroutine that asks for locks, acts under them and gives them back."""

    def __init__(
        self, history: History, plan: Plan, membership: Membership, dice: random.Random
    ) -> None:
        self._history = history
        self._membership = membership
        self._member = str(membership.identity.member_id)
        self._dice = dice
        self._acting = Acting(history, plan, membership.session, dice)
        self._holds = itertools.count()

    async def run(self, quiet: asyncio.Event) -> None:
        """Work until it is to be quiet, or the member ends."""
        try:
            while not quiet.is_set():
                await asyncio.sleep(self._dice.uniform(0.005, 0.1))
                try:
                    await self._turn(quiet)
                except MemberEnded:
                    return
                except (NotHeld, Unavailable, OutcomeUnknown, LockBusy):
                    continue
        finally:
            self._acting.close()

    async def _turn(self, quiet: asyncio.Event) -> None:
        dice = self._dice
        keys = dice.sample(KEYS, dice.choice((1, 1, 1, 2, 3)))
        wanted = [Wanted(key, dice.choice(list(Mode))) for key in keys]
        patience_s = dice.uniform(0.0, 0.3) if dice.random() < 0.1 else None  # then: cancelled
        hold = await self._acquire(wanted, dice.choice(WAITS_S), patience_s)
        if hold is None:
            return
        owner = f"{self._member}/{id(self)}/{next(self._holds)}"
        try:
            await self._work(hold, owner, dice.choice(ACTS), quiet)
        finally:
            self._membership.locks.release(hold)

    async def _acquire(
        self, wanted: list[Wanted], wait_s: float | None, patience_s: float | None
    ) -> Hold | None:
        asked = {str(each.key): each.mode for each in wanted}
        with self._history.operation(
            "acquire", member=self._member, keys=asked, wait_s=wait_s, patience_s=patience_s
        ) as op:
            try:
                async with asyncio.timeout(patience_s):
                    hold = await self._membership.locks.acquire(*wanted, wait_s=wait_s)
            except (asyncio.CancelledError, TimeoutError) as error:
                op.end("cancelled")
                if isinstance(error, TimeoutError):
                    return None
                raise
            except EngineError as error:
                self._refuse(op, error)
                raise
            op.end("ok", tokens={str(grant.key): grant.token for grant in hold.grants})
            return hold

    def _refuse(self, op: Operation, error: EngineError) -> None:
        op.end("unknown" if isinstance(error, OutcomeUnknown) else "refused", error=repr(error))

    async def _work(self, hold: Hold, owner: str, acts: int, quiet: asyncio.Event) -> None:
        """Act under a hold; some acts at the witness, some in the database."""
        for _ in range(acts):
            if quiet.is_set():
                return
            await self._membership.session.until_trusted()  # a pause, under the same tokens
            if hold.lost is not None:
                raise hold.lost
            grant = self._dice.choice(hold.grants)
            if grant.mode is Mode.EXCLUSIVE and self._dice.random() < 0.15:
                fence = Fence(grants=hold.grants)
                fencing = self._membership.fencing
                await self._acting.write(str(grant.key), grant.token, fence, fencing)
            else:
                await self._acting.act(str(grant.key), str(grant.mode), grant.token, owner=owner)
            await asyncio.sleep(self._dice.uniform(0.0, 0.06))


if __name__ == "__main__":
    asyncio.run(Worker(Plan(**json.loads(sys.argv[1]))).run())
