"""Many at once: crowds that wait, large requests, and callers with defects of their own."""

from __future__ import annotations

import asyncio

import pytest
from integration.nodes import eventually, node, run
from integration.test_cluster_locks import alone, cut_lock_session

from engine_pg.cluster.locks import Hold, LockKey, Reason, Wanted
from engine_pg.cluster.membership import Lease
from engine_pg.errors import Invalid, Locked, MemberEnded

TICKETS = "select count(distinct ticket) as n from lock_ticket where id = %(id)s"


def test_a_member_leaves_at_once_however_many_wait_in_it(database_url):
    async def story():
        async with node(database_url, "a") as a, node(database_url, "b") as b:
            await a.locks.acquire(alone("crowded"))
            waiting = [
                asyncio.ensure_future(b.locks.acquire(alone("crowded"), wait_s=None))
                for _ in range(300)
            ]

            async def all_wait():
                return (await a.rows(TICKETS, id="crowded"))[0]["n"] == len(waiting)

            await eventually(all_wait)
            async with asyncio.timeout(2):
                await b.membership.leave()
                await asyncio.wait(waiting)
            assert {type(each.exception()) for each in waiting} == {MemberEnded}
            assert not (await a.rows(TICKETS, id="crowded"))[0]["n"]

    run(story())


def test_requests_at_once_keep_to_the_limit_and_what_is_over_counts_no_more(database_url):
    async def story():
        async with node(database_url, "a") as a:
            a.locks.limit = 10
            for turn in range(3):
                asked = [
                    asyncio.ensure_future(a.locks.acquire(alone(f"limit {n}"), wait_s=n % 2))
                    for n in range(30)
                ]
                await asyncio.sleep(0)
                asked[turn].cancel()
                await asyncio.wait(asked)
                had = [each for each in asked if not each.cancelled() and not each.exception()]
                assert 9 <= len(had) <= 10
                assert isinstance(asked[20].exception(), Locked)
                for each in had:
                    hold = each.result()
                    assert isinstance(hold, Hold)
                    a.locks.release(hold)

                async def nothing_counts():
                    return not (a.locks.held or a.locks.waiting or a.locks._count)

                await eventually(nothing_counts)

    run(story())


def test_many_requests_for_many_keys_each_do_not_cost_the_lease(fresh_database_url):
    async def story():
        lease, keys = Lease(), [alone(f"wide {n}") for n in range(80)]
        async with (
            node(fresh_database_url, "a", lease=lease) as a,
            node(fresh_database_url, "b", lease=lease) as b,
        ):
            b.locks.limit = 1_000_000
            hold = await a.locks.acquire(*keys)
            waiting = [
                asyncio.ensure_future(b.locks.acquire(*keys, wait_s=None)) for _ in range(250)
            ]

            async def all_wait():
                return (await a.rows(TICKETS, id="wide 0"))[0]["n"] == len(waiting)

            await eventually(all_wait, 30)
            a.locks.release(hold)
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED, timeout=10)
            assert sum(each.done() for each in waiting) == 1
            assert b.session.measures.resumes == 0

    run(story(), 60)


@pytest.mark.parametrize(
    "ask",
    [
        lambda: Wanted("test/a"),
        lambda: Wanted(LockKey("test", "a"), "sharde"),
        lambda: Reason(command_id="a"),
    ],
)
def test_a_request_of_wrong_types_is_refused_before_it_ends_everybodys_batch(ask):
    with pytest.raises(Invalid):
        ask()


def test_a_holder_who_fails_when_he_is_told_of_his_loss_ends_nobody_elses_member(database_url):
    async def story():
        async with node(database_url, "a") as a:
            hold = await a.locks.acquire(alone("taken from a"))
            told = asyncio.Event()

            def fail():
                told.set()
                raise RuntimeError("a defect of the caller")

            hold.when_lost(fail)
            async with a.db.write() as tx:
                await tx.run("delete from lock_grant where id = 'taken from a'")
            await cut_lock_session(a, a)
            await told.wait()
            await a.locks.acquire(alone("still alive"), wait_s=5)

    run(story())
