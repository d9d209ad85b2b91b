"""Waiting costs nothing: whoever waits asks when it may be its turn, not again and again."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from integration.nodes import eventually, node, run
from integration.test_cluster_hardship import claimed
from integration.test_cluster_locks import alone, together
from integration.test_cluster_waiting import waiting

ALMOST_NONE = 60  # 30 renewals and looks, and a few tries
ORPHANS = "select 1 from lock_grant where id = %(id)s and member_id is null"
WATCHED_S = 1.0

pytestmark = pytest.mark.usefixtures("no_poll")


async def batches_while(members, *asking) -> int:
    """Let requests wait for a while; return how many batches that took the busiest member."""
    started = [asyncio.ensure_future(each) for each in asking]
    await waiting(members[0], 2 * len(asking))
    before = [one.session.measures.batch_sizes.count for one in members]
    await asyncio.sleep(WATCHED_S)  # how much goes on in that time is what is tested
    after = [one.session.measures.batch_sizes.count for one in members]
    for each in started:
        each.cancel()
        with suppress(asyncio.CancelledError):
            await each
    return max(later - sooner for sooner, later in zip(before, after, strict=True))


def test_who_waits_for_one_key_while_the_other_is_free_does_not_ring_itself(fresh_database_url):
    async def story():
        url = fresh_database_url
        async with node(url, "a") as a, node(url, "b") as b:
            await a.locks.acquire(alone("held"))
            asking = b.locks.acquire(alone("free"), alone("held"), wait_s=20)
            assert await batches_while([a, b], asking) < ALMOST_NONE

    run(story())


def test_two_who_share_a_free_key_and_wait_for_others_do_not_ring_each_other(fresh_database_url):
    async def story():
        url = fresh_database_url
        async with node(url, "a") as a, node(url, "b") as b, node(url, "c") as c:
            await a.locks.acquire(alone("held"), alone("held too"))
            one = b.locks.acquire(together("free"), alone("held"), wait_s=20)
            other = c.locks.acquire(together("free"), alone("held too"), wait_s=20)
            assert await batches_while([a, b, c], one, other) < ALMOST_NONE

    run(story())


def test_a_crowd_behind_a_grant_that_awaits_an_adopter_asks_a_few_times_only(fresh_database_url):
    async def story():
        async with node(fresh_database_url, "a") as a, node(fresh_database_url, "b") as b:
            _, claim, _ = await claimed(a, "orphan")
            a.claims.vacate(claim)
            await eventually(lambda: b.rows(ORPHANS, id="orphan"))
            crowd = [
                asyncio.ensure_future(b.locks.acquire(together("orphan"), wait_s=None))
                for _ in range(50)
            ]
            sizes = b.session.measures.batch_sizes

            async def quiet():
                before = sizes.total
                await asyncio.sleep(WATCHED_S)
                return before >= 2 * len(crowd) and sizes.total - before < len(crowd)

            assert await eventually(quiet)
            for each in crowd:
                each.cancel()
            await asyncio.wait(crowd)

    run(story())
