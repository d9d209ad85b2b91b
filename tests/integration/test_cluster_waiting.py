"""Waiting for locks: first come, first served, across nodes; nothing lost, nothing leaked."""

from __future__ import annotations

import asyncio
import random

import pytest
from integration.nodes import LEASE, eventually, node, run
from integration.stops import stop_at
from integration.test_cluster_locks import ADVISORY, alone, cut_lock_session, together

from engine_pg.cluster.locks import LockBusy, Reason
from engine_pg.cluster.ops import Op
from engine_pg.errors import Invalid, Locked, MemberEnded
from engine_pg.ids import new_id

TICKETS = "select id, mode, reason from lock_ticket order by ticket"


async def waiting(one, count: int) -> None:
    async def there():
        return len(await one.rows(TICKETS)) == count

    await eventually(there)


@pytest.mark.usefixtures("no_poll")
def test_waiters_of_all_nodes_are_served_in_the_order_in_which_they_came(fresh_database_url):
    async def story():
        url, served = fresh_database_url, []
        async with node(url, "a") as a, node(url, "b") as b, node(url, "c") as c:
            key = alone("queue")
            first = await a.locks.acquire(key)

            async def wait(one, name):
                hold = await one.locks.acquire(key, wait_s=30, reason=Reason(name))
                served.append(name)
                await asyncio.sleep(0)
                one.locks.release(hold)

            async with asyncio.TaskGroup() as group:
                order = [(b, "1"), (c, "2"), (a, "3"), (b, "4"), (b, "5"), (a, "6"), (c, "7")]
                for count, (one, name) in enumerate(order, start=1):
                    group.create_task(wait(one, name))
                    await waiting(a, count)
                assert [row["reason"] for row in await a.rows(TICKETS)] == list("1234567")
                a.locks.release(first)
            assert served == list("1234567")
            assert await a.rows(TICKETS) == []

    run(story())


@pytest.mark.usefixtures("no_poll")
def test_a_waiting_exclusive_request_is_not_starved_by_later_shared_ones(fresh_database_url):
    async def story():
        url = fresh_database_url
        async with node(url, "a") as a, node(url, "b") as b, node(url, "c") as c:
            reader = await a.locks.acquire(together("door"))
            writing = asyncio.ensure_future(b.locks.acquire(alone("door"), wait_s=20))
            await waiting(a, 1)
            for one in (a, b, c):
                with pytest.raises(LockBusy, match=r"exclusive by b, who waits"):
                    await one.locks.acquire(together("door"))
            later = [
                asyncio.ensure_future(one.locks.acquire(together("door"), wait_s=20))
                for one in (c, a)
            ]
            await waiting(a, 3)
            a.locks.release(reader)
            writer = await writing
            assert not any(each.done() for each in later)
            b.locks.release(writer)
            both = [await each for each in later]  # together: neither waits for the other
            assert len({hold.grants[0].token for hold in both}) == 2

    run(story())


@pytest.mark.usefixtures("no_poll")
def test_a_release_between_the_try_and_the_ticket_is_not_lost(fresh_database_url):
    async def story():
        url = fresh_database_url
        async with node(url, "a") as a, node(url, "b") as b:
            hold = await a.locks.acquire(alone("gap"))
            async with stop_at(url, "lock_ticket", "before insert") as stop:
                asking = asyncio.ensure_future(b.locks.acquire(alone("gap"), wait_s=20))
                await stop.reached()  # refused, and the ticket is not there yet
                a.locks.release(hold)

                async def released():
                    return not await a.rows("select 1 from lock_grant where id = 'gap'")

                await eventually(released)
                await stop.go()
                async with asyncio.timeout(5):
                    await asking

    run(story())


@pytest.mark.usefixtures("no_poll")
def test_who_asks_while_a_release_waits_for_its_commit_is_served(fresh_database_url):
    async def story():
        url = fresh_database_url
        async with node(url, "a") as a, node(url, "b") as b:
            await a.db.statement("insert into leader (name) values ('slow')")
            hold = await a.locks.acquire(alone("late commit"))
            async with stop_at(url, "leader", "before update") as stop:
                won = asyncio.get_running_loop().create_future()
                a.locks.release(hold)  # in one batch with something that keeps it from its commit
                body = {"op": "win", "name": "slow", "term": 0, "gate": 1}
                a.session.submit(Op(body, won.set_result, won.set_exception))
                await stop.reached()  # the advisory lock is free, the grant stands
                asking = asyncio.ensure_future(b.locks.acquire(alone("late commit"), wait_s=20))
                await waiting(b, 1)
                await stop.go()
                async with asyncio.timeout(5):
                    await asking

    run(story())


def test_a_wait_that_times_out_names_the_holder_and_leaves_nothing(fresh_database_url):
    async def story():
        url = fresh_database_url
        async with node(url, "a") as a, node(url, "b") as b:
            await a.locks.acquire(alone("busy"), reason=Reason("a long work", "somebody"))
            with pytest.raises(LockBusy, match="exclusive by a for somebody: a long work"):
                await b.locks.acquire(alone("busy"), wait_s=0.3)
            assert await a.rows(TICKETS) == []

    run(story())


@pytest.mark.usefixtures("no_poll")
def test_the_next_in_line_is_rung_when_the_first_gives_up(fresh_database_url):
    async def story():
        url = fresh_database_url
        async with node(url, "a") as a, node(url, "b") as b, node(url, "c") as c:
            await a.locks.acquire(together("way"))
            first = asyncio.ensure_future(b.locks.acquire(alone("way"), wait_s=20))
            await waiting(a, 1)
            second = asyncio.ensure_future(c.locks.acquire(together("way"), wait_s=20))
            await waiting(a, 2)
            first.cancel()
            async with asyncio.timeout(5):
                await second

    run(story())


def test_a_waiter_keeps_its_place_through_a_cut_of_its_lock_session(fresh_database_url):
    async def story():
        url, served = fresh_database_url, []
        async with node(url, "a") as a, node(url, "b") as b, node(url, "c") as c:
            first = await a.locks.acquire(alone("place"))

            async def wait(one, name):
                hold = await one.locks.acquire(alone("place"), wait_s=20)
                served.append(name)
                one.locks.release(hold)

            async with asyncio.TaskGroup() as group:
                for count, (one, name) in enumerate([(b, "b"), (c, "c")], start=1):
                    group.create_task(wait(one, name))
                    await waiting(a, count)
                await cut_lock_session(a, b)
                await waiting(a, 2)
                a.locks.release(first)
            assert served == ["b", "c"]

    run(story())


def test_the_tickets_of_an_ended_member_stand_in_nobodys_way(fresh_database_url):
    async def story():
        url = fresh_database_url
        async with node(url, "a") as a, node(url, "b") as b, node(url, "c") as c:
            await asyncio.sleep(LEASE.ttl_s * 1.3)  # who ends b must have been well for a ttl
            reader = await a.locks.acquire(together("dead first"))
            first = asyncio.ensure_future(b.locks.acquire(alone("dead first"), wait_s=20))
            await waiting(a, 1)
            second = asyncio.ensure_future(c.locks.acquire(alone("dead first"), wait_s=20))
            await waiting(a, 2)
            await b.die()
            with pytest.raises(MemberEnded):
                await first
            a.locks.release(reader)
            await second

    run(story())


def test_a_hundred_waiters_of_two_nodes_exclude_each_other_and_all_are_served(fresh_database_url):
    async def story():
        url, inside, tokens = fresh_database_url, 0, []
        async with node(url, "a") as a, node(url, "b") as b:

            async def work(one):
                nonlocal inside
                hold = await one.locks.acquire(alone("crowd"), wait_s=30)
                inside += 1
                assert inside == 1
                tokens.append(hold.grants[0].token)
                await asyncio.sleep(0)
                inside -= 1
                one.locks.release(hold)

            async with asyncio.TaskGroup() as group:
                for _ in range(50):
                    group.create_task(work(a))
                    group.create_task(work(b))
            assert len(tokens) == 100
            assert tokens == sorted(tokens)

    run(story())


def test_several_keys_are_waited_for_without_a_deadlock(fresh_database_url):
    async def story():
        dice = random.Random(7)
        url, inside = fresh_database_url, dict.fromkeys(range(4), 0)
        async with node(url, "a") as a, node(url, "b") as b:

            async def work(one):
                for _ in range(6):
                    numbers = dice.sample(range(4), 2)
                    hold = await one.locks.acquire(*map(alone, numbers), wait_s=30)
                    for number in numbers:
                        inside[number] += 1
                        assert inside[number] == 1
                    await asyncio.sleep(0.001)
                    for number in numbers:
                        inside[number] -= 1
                    one.locks.release(hold)

            async with asyncio.TaskGroup() as group:
                for turn in range(8):
                    group.create_task(work((a, b)[turn % 2]))

    run(story())


async def ask_and_release(one, dice):
    key = dice.choice((alone, together))(f"k{dice.randrange(3)}")
    hold = await one.locks.acquire(key, wait_s=dice.choice((0, 0.02, 5, None)))
    try:
        await asyncio.sleep(dice.random() / 200)
    finally:
        one.locks.release(hold)


async def cancelled_somewhere(asked, dice):
    for _ in range(dice.randrange(30)):
        await asyncio.sleep(0)
    if dice.random() < 0.7:
        await asyncio.sleep(dice.random() / 50)
    for each in asked:
        each.cancel()
    done, _ = await asyncio.wait(asked)
    for each in done:
        if not each.cancelled() and not isinstance(each.exception(), LockBusy):
            each.result()


def test_cancelling_at_any_moment_leaks_neither_lock_nor_grant_nor_ticket(fresh_database_url):
    async def story():
        dice, url = random.Random(3), fresh_database_url
        async with node(url, "a") as a, node(url, "b") as b:
            for _ in range(40):
                turns = (a, b, a, b, a, b)
                asked = [asyncio.ensure_future(ask_and_release(one, dice)) for one in turns]
                await cancelled_somewhere(asked, dice)

            async def nothing_left():
                return not (
                    await a.rows("select 1 from lock_grant")
                    or await a.rows(TICKETS)
                    or (await a.rows(ADVISORY))[0]["n"]
                )

            assert await eventually(nothing_left)
            for one in (a, b):
                assert one.locks.held == []
                assert one.locks.tickets == []
                hold = await one.locks.acquire(*(alone(f"k{n}") for n in range(3)))
                one.locks.release(hold)
                await eventually(nothing_left)

    run(story())


def test_a_member_at_its_limit_is_told_so(fresh_database_url):
    async def story():
        async with node(fresh_database_url, "a") as a:
            a.locks.limit = 3
            holds = [await a.locks.acquire(alone(n)) for n in range(2)]
            with pytest.raises(Locked, match="limit of 3"):
                await a.locks.acquire(alone("x"), alone("y"))
            a.locks.release(holds[0])
            await a.locks.acquire(alone("x"), alone("y"))

    run(story())


@pytest.mark.parametrize("text", ["", "x" * 600, "nul \0", "half \ud800"])
def test_a_key_that_would_fail_everybodys_batch_is_refused_before(text):
    with pytest.raises(Invalid):
        alone(text)


def test_an_unknown_key_is_granted_at_once_beside_a_long_queue(fresh_database_url):
    async def story():
        async with node(fresh_database_url, "a") as a:
            await a.locks.acquire(alone("long"))
            crowd = [
                asyncio.ensure_future(a.locks.acquire(alone("long"), wait_s=None))
                for _ in range(300)
            ]
            await waiting(a, 300)
            async with asyncio.timeout(2):
                await a.locks.acquire(alone(new_id()))
            for each in crowd:
                each.cancel()
            await asyncio.wait(crowd)
            await waiting(a, 0)

    run(story())


@pytest.mark.usefixtures("no_poll")
def test_who_takes_a_ticket_while_the_one_before_is_given_back_is_served(fresh_database_url):
    async def story():
        url = fresh_database_url
        async with node(url, "a") as a, node(url, "b") as b, node(url, "c") as c:
            reader = await a.locks.acquire(together("gap of tickets"))
            first = asyncio.ensure_future(b.locks.acquire(alone("gap of tickets"), wait_s=20))
            await waiting(a, 1)
            async with stop_at(url, "lock_ticket", "after delete") as stop:
                first.cancel()
                await stop.reached()  # given back, and not committed
                second = asyncio.ensure_future(
                    c.locks.acquire(together("gap of tickets"), wait_s=20)
                )
                await waiting(a, 2)  # it has seen the first one's ticket, twice
                await eventually(lambda: asyncio.sleep(0, not c.session._outbox))
                await stop.go()
                async with asyncio.timeout(5):
                    await second
            a.locks.release(reader)

    run(story())
