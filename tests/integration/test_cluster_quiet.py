"""Waiting costs nothing: whoever waits asks when it may be its turn, not again and again."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from integration.nodes import node, run
from integration.test_cluster_locks import alone, together
from integration.test_cluster_waiting import waiting

from engine_pg.cluster import membership

ALMOST_NONE = 60  # 30 renewals and looks, and a few tries
WATCHED_S = 1.0


@pytest.fixture(autouse=True)
def no_poll(monkeypatch):
    monkeypatch.setattr(membership, "_POLL_S", 1000.0)


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
