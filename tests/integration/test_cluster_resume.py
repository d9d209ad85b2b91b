"""Locks and leaderships outlive lock sessions, servers and primaries: a pair of real servers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from integration.nodes import LEASE, TestNode, eventually, node, run
from replication import Pair, Server, until

from engine_pg.clock import boottime
from engine_pg.cluster.fence import Fence
from engine_pg.cluster.locks import Hold, LockBusy, LockKey, Mode, Wanted
from engine_pg.cluster.membership import Lease
from engine_pg.errors import MemberEnded
from engine_pg.ids import hash64

log = logging.getLogger(__name__)

EPOCH = "select max(epoch_id) as epoch from cluster_epoch"
LED = next(name for name in map(str, range(99)) if hash64(f"{name}@a") > hash64(f"{name}@b"))
WORK = "insert into work (token) values (%(token)s)"


def alone(name: str) -> Wanted:
    return Wanted(LockKey("test", name))


def together(name: str) -> Wanted:
    return Wanted(LockKey("test", name), Mode.SHARED)


async def lead(_leadership) -> None:
    await asyncio.Event().wait()


async def write_under(one: TestNode, hold: Hold) -> None:
    async with one.membership.fencing.tx(Fence(hold.grants)) as tx:
        await tx.run(WORK, {"token": hold.grants[0].token})


@dataclass
class Rival:
    """A member that tries to take keys all the time; `refused` counts, `got` must stay empty."""

    one: TestNode
    refused: int = 0
    got: list[Hold] = field(default_factory=list)

    async def try_for(self, *wanted: Wanted) -> None:
        while True:
            try:
                self.got.append(await self.one.locks.acquire(*wanted))
            except LockBusy:
                self.refused += 1
            await asyncio.sleep(0.005)


@asynccontextmanager
async def besieged(rival: Rival, *wanted: Wanted):
    async with asyncio.TaskGroup() as group:
        trying = group.create_task(rival.try_for(*wanted))
        await eventually(lambda: at_least(rival, 1))
        yield
        trying.cancel()


async def at_least(rival: Rival, refusals: int) -> bool:
    return rival.refused >= refusals


def terminated(replicated, one: TestNode) -> None:
    replicated.pair.primary.ask(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = %s"
        " and datname = %s",
        f"engine_pg lock session {one.membership.identity.node}",
        replicated.database,
    )


def reset(replicated, _one) -> None:
    replicated.pair.primary.link.reset()


def restarted(replicated, _one) -> None:
    replicated.pair.primary.embedded.restart_immediate()


def crashed(replicated, _one) -> None:
    replicated.pair.primary.crash()


def killed_and_failed_over(replicated, _one) -> None:
    replicated.pair.primary.kill()
    replicated.pair.promote()


def frozen_and_failed_over(replicated, _one) -> None:
    replicated.pair.primary.freeze()
    replicated.pair.promote()


FAULTS: dict[str, tuple[Callable[..., None], bool]] = {
    "its backend is terminated": (terminated, False),
    "a proxy resets it": (reset, False),
    "an immediate restart": (restarted, True),
    "a crash restart": (crashed, True),
    "a failover from a dead primary": (killed_and_failed_over, True),
    "a failover from a frozen primary": (frozen_and_failed_over, True),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_member_holds_outlives(fault, replicated):
    befall, new_epoch = FAULTS[fault]

    async def story():
        async with (
            node(replicated.url, "a", singletons={LED: lead}) as a,
            node(replicated.url, "b") as b,
        ):
            await a.db.statement("create table work (token bigint)")
            kept = await a.locks.acquire(alone("kept"), together("shared"))
            led = await eventually(lambda: leaderships(a))
            epoch = (await a.rows(EPOCH))[0]["epoch"]
            resumes, rival = a.session.measures.resumes, Rival(b)
            async with besieged(rival, alone("kept")):
                await asyncio.to_thread(befall, replicated, a)
                await eventually(lambda: resumed(a, resumes), 20)
                refused = rival.refused
                await a.session.until_trusted()
                await write_under(a, kept)
                await eventually(lambda: at_least(rival, refused + 3), 20)
            assert rival.got == []
            assert kept.lost is None
            assert await leaderships(a) == led
            assert ((await a.rows(EPOCH))[0]["epoch"] > epoch) == new_epoch
            a.locks.release(kept)
            later = await b.locks.acquire(alone("kept"), wait_s=5)
            assert later.grants[0].token > kept.grants[0].token
            rows = await b.rows("select count(*) as n from work")
            assert rows == [{"n": 1}]

    run(story(), 60)


async def leaderships(one: TestNode):
    return one.membership.leaders.held


async def resumed(one: TestNode, before: int) -> bool:
    return one.session.measures.resumes > before


def test_a_member_whose_connection_is_swallowed_comes_back_before_it_is_ended(replicated):
    slow = Lease(ttl_s=3.0, margin_s=0.3, heartbeat_s=0.3)

    async def story(link, url):
        async with node(url, "a", lease=slow) as a, node(replicated.url, "b", lease=slow) as b:
            await a.db.statement("create table work (token bigint)")
            kept = await a.locks.acquire(alone("kept"))
            await asyncio.sleep(slow.ttl_s * 1.2)  # b could end it
            link.swallow()
            await eventually(lambda: resumed(a, 0))
            await write_under(a, kept)
            with pytest.raises(LockBusy, match="exclusive by a"):
                await b.locks.acquire(alone("kept"))

    with replicated.private_link() as (link, url):
        run(story(link, url))


def test_an_unresumed_grant_keeps_its_key_until_its_member_has_resumed_and_released(replicated):
    slow = Lease(ttl_s=4.0, margin_s=0.4, heartbeat_s=0.2)

    async def story(link, url):
        async with node(url, "a", lease=slow) as a, node(replicated.url, "b", lease=slow) as b:
            kept = await a.locks.acquire(alone("kept"))
            link.cut()
            await asyncio.to_thread(replicated.pair.primary.embedded.restart_immediate)
            began = boottime()
            await b.locks.acquire(alone("free"), wait_s=2)
            assert boottime() - began < slow.ttl_s / 2, "nobody holds it: granted at once"
            with pytest.raises(LockBusy, match="exclusive by a"):
                await b.locks.acquire(alone("kept"))
            link.heal()
            await eventually(lambda: resumed(a, 0))
            with pytest.raises(LockBusy, match="exclusive by a"):
                await b.locks.acquire(alone("kept"))
            a.locks.release(kept)
            await b.locks.acquire(alone("kept"), wait_s=5)

    with replicated.private_link() as (link, url):
        run(story(link, url))


def test_a_member_that_comes_back_too_late_was_ended_and_holds_nothing(replicated):
    async def story(link, url):
        async with node(url, "a") as a, node(replicated.url, "b") as b:
            await asyncio.sleep(LEASE.ttl_s * 1.2)  # b must have been well itself
            kept = await a.locks.acquire(alone("kept"))
            link.cut()
            with pytest.raises(LockBusy):
                await b.locks.acquire(alone("kept"))
            taken = await b.locks.acquire(alone("kept"), wait_s=10)
            assert not a.session.trusted, "it stopped before another could act"
            assert a.session.ended is None, "it cannot know"
            assert taken.grants[0].token > kept.grants[0].token
            link.heal()
            with pytest.raises(MemberEnded, match="no renewal"):
                await a.session.until_trusted()
            with pytest.raises(MemberEnded):
                await write_under(a, kept)
            rows = await b.rows(
                "select count(*) as n from lock_grant where member_id = %(m)s", m=a.member_id
            )
            assert rows == [{"n": 0}]

    with replicated.private_link() as (link, url):
        run(story(link, url))


def started_again(pair: Pair) -> float:
    pair.primary.embedded.stop("immediate")
    with ThreadPoolExecutor() as threads:
        wrote = threads.submit(first_write, pair.primary)
        pair.primary.embedded.start()
        return wrote.result()


def failed_over(pair: Pair) -> float:
    pair.primary.kill()
    with ThreadPoolExecutor() as threads:
        wrote = threads.submit(first_write, pair.standby)
        pair.promote()
        return wrote.result()


def first_write(server: Server) -> float:
    until(lambda: server.ask("select pg_current_xact_id()::text"))
    return boottime()


@pytest.mark.quiet
@pytest.mark.parametrize("fall", [started_again, failed_over])
def test_a_thousand_locks_are_resumed_within_a_second_of_the_first_write(fall, replicated):
    patient = Lease(ttl_s=5.0, margin_s=0.5, heartbeat_s=0.5)

    async def story():
        async with node(replicated.url, "a", lease=patient) as a:
            await a.db.statement("create table work (token bigint)")
            kept = await a.locks.acquire(*(alone(str(number)) for number in range(1000)))
            async with asyncio.TaskGroup() as group:
                falling = group.create_task(asyncio.to_thread(fall, replicated.pair))
                await eventually(lambda: resumed(a, 0))
                resumed_at = boottime()
                await write_under(a, Hold(kept.grants[:1], kept.entry, kept.since))
                wrote_at = boottime()
            wait_s = resumed_at - falling.result()
            log.info("resumed %.3f s, wrote %.3f s later", wait_s, wrote_at - falling.result())
            assert wait_s <= 1.0

    run(story())
