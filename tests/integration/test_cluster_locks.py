"""Locks, grants, tokens and fences of real members on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import gc

import pytest
from integration.nodes import eventually, node, run

from engine_pg.cluster.fence import Fence
from engine_pg.cluster.locks import Hold, LockBusy, LockKey, Mode, Reason, Wanted
from engine_pg.errors import LeaseLost, MemberEnded, StaleToken
from engine_pg.ids import new_id

ADVISORY = """
select count(*) as n from pg_locks l join pg_database d on d.oid = l.database
 where l.locktype = 'advisory' and l.objsubid = 1 and d.datname = current_database()
"""


def alone(name: object) -> Wanted:
    return Wanted(LockKey("test", str(name)))


def together(name: object) -> Wanted:
    return Wanted(LockKey("test", str(name)), Mode.SHARED)


def test_an_exclusive_lock_excludes_other_nodes_and_names_its_holder(database_url):
    async def story():
        async with node(database_url, "a") as a, node(database_url, "b") as b:
            key = alone(new_id())
            hold = await a.locks.acquire(key, reason=Reason("a reason", "somebody"))
            with pytest.raises(LockBusy, match="exclusive by a for somebody: a reason"):
                await b.locks.acquire(key)
            a.locks.release(hold)
            again = await b.locks.acquire(key, wait_s=5)
            assert again.grants[0].token > hold.grants[0].token

    run(story())


def test_shared_holders_coexist_and_keep_exclusive_ones_out(database_url):
    async def story():
        async with node(database_url, "a") as a, node(database_url, "b") as b:
            key = new_id()
            ours, theirs = (
                await a.locks.acquire(together(key)),
                await b.locks.acquire(together(key)),
            )
            second = await a.locks.acquire(together(key))
            for one in (a, b):
                with pytest.raises(LockBusy):
                    await one.locks.acquire(alone(key))
            a.locks.release(ours)
            b.locks.release(theirs)
            with pytest.raises(LockBusy):  # the node's other holder still stands
                await b.locks.acquire(alone(key), wait_s=0.2)
            a.locks.release(second)
            await b.locks.acquire(alone(key), wait_s=5)

    run(story())


def test_several_keys_are_had_all_or_none(database_url):
    async def story():
        async with node(database_url, "a") as a, node(database_url, "b") as b:
            first, second = new_id(), new_id()
            await a.locks.acquire(alone(second))
            with pytest.raises(LockBusy):
                await b.locks.acquire(alone(first), alone(second))
            await a.locks.acquire(alone(first))  # b left nothing behind on it

    run(story())


def test_two_tasks_of_one_node_exclude_each_other(database_url):
    async def story():
        async with node(database_url, "a") as a:
            inside = 0

            async def work():
                nonlocal inside
                hold = await a.locks.acquire(alone("one node"), wait_s=20)
                inside += 1
                assert inside == 1
                await asyncio.sleep(0)
                inside -= 1
                a.locks.release(hold)

            async with asyncio.TaskGroup() as group:
                for _ in range(20):
                    group.create_task(work())

    run(story())


def test_cancelled_requests_leave_no_grant_and_no_advisory_lock(database_url):
    async def story():
        async with node(database_url, "a") as a:
            for turn in range(60):
                asking = asyncio.ensure_future(
                    a.locks.acquire(alone(f"cancel {turn % 3}"), wait_s=1)
                )
                for _ in range(turn % 12):
                    await asyncio.sleep(0)
                if turn % 2:
                    await asyncio.sleep(0.002)
                asking.cancel()
                await asyncio.wait([asking])
                if not asking.cancelled():
                    a.locks.release(asking.result())

            async def nothing_left():
                grants = await a.rows("select count(*) as n from lock_grant where kind = 'test'")
                return grants[0]["n"] == 0 and (await a.rows(ADVISORY))[0]["n"] == 0

            assert await eventually(nothing_left)
            assert a.locks.held == []

    run(story())


def test_what_is_given_back_leaves_no_garbage(database_url):
    async def story():
        async with node(database_url, "a") as a:
            key, other = alone(new_id()), alone(new_id())

            async def holds_after(times: int) -> int:
                for _ in range(times):
                    a.locks.release(await a.locks.acquire(key, wait_s=5))
                a.locks.release(await a.locks.acquire(other))  # the last release has gone before it
                return sum(isinstance(each, Hold) for each in gc.get_objects())

            gc.collect()
            gc.disable()  # what is in no cycle goes all the same
            try:
                before = await holds_after(1)
                assert await holds_after(50) <= before
            finally:
                gc.enable()

    run(story())


def test_tokens_of_a_key_rise_across_nodes_and_sessions(database_url):
    async def story():
        async with node(database_url, "a") as a, node(database_url, "b") as b:
            tokens = []
            for turn in range(12):
                who = (a, b)[turn % 2]
                hold = await who.locks.acquire(alone("rising"), wait_s=5)
                tokens.append(hold.grants[0].token)
                who.locks.release(hold)
                if turn == 5:
                    await cut_lock_session(b, a)
            assert tokens == sorted(set(tokens))

    run(story())


async def cut_lock_session(by, whose) -> None:
    before = whose.session.measures.resumes
    async with by.db.write() as tx:
        await tx.run(
            "select pg_terminate_backend(backend_pid) from member where member_id = %(m)s",
            {"m": whose.member_id},
        )

    async def resumed():
        return whose.session.measures.resumes > before

    await eventually(resumed)


def test_a_cut_lock_session_resumes_under_the_same_tokens(database_url):
    async def story():
        async with node(database_url, "a") as a, node(database_url, "b") as b:
            kept = await a.locks.acquire(alone("kept"), together("kept too"))
            gone = await a.locks.acquire(alone("given back"))
            a.locks.release(gone)
            await cut_lock_session(b, a)
            assert kept.lost is None
            async with a.membership.fencing.tx(Fence(kept.grants)) as tx:
                assert await tx.all("select 1 as one") == [{"one": 1}]
            with pytest.raises(LockBusy):
                await b.locks.acquire(alone("kept"))
            await b.locks.acquire(alone("given back"), wait_s=5)
            assert (await a.rows(ADVISORY))[0]["n"] == 3

    run(story())


def test_a_fenced_write_of_an_ended_member_is_refused(database_url):
    async def story():
        async with node(database_url, "a") as a, node(database_url, "b") as b:
            hold = await a.locks.acquire(alone("fenced"))
            fence, fencing = Fence(hold.grants), a.membership.fencing
            await a.die()
            await b.locks.acquire(alone("fenced"), wait_s=10)
            a.session.ended = None
            a.session.trusted_until = float("inf")  # a node that believes in itself wrongly
            with pytest.raises(MemberEnded):
                async with fencing.tx(fence):
                    pytest.fail("the fence let a stale holder in")

    run(story())


def test_a_fence_refuses_a_superseded_token(database_url):
    async def story():
        async with node(database_url, "a") as a:
            old = await a.locks.acquire(alone("token"))
            a.locks.release(old)
            await a.locks.acquire(alone("token"), wait_s=5)
            with pytest.raises(StaleToken):
                async with a.membership.fencing.tx(Fence(old.grants)):
                    pytest.fail("the fence let a stale token in")

    run(story())


def test_a_member_past_its_lease_writes_nothing(database_url):
    async def story():
        async with node(database_url, "a") as a:
            hold = await a.locks.acquire(alone("late"))

            async def lease_runs_out_inside():
                async with a.membership.fencing.tx(Fence(hold.grants)) as tx:
                    await tx.run("create table must_not_exist (x int)")
                    a.session.trusted_until = 0.0

            with pytest.raises(LeaseLost):
                await lease_runs_out_inside()
            assert await a.rows("select to_regclass('must_not_exist') as t") == [{"t": None}]

    run(story())


def test_ending_waits_for_a_fenced_transaction_and_ends_a_frozen_one(database_url):
    async def story():
        async with node(database_url, "a") as a, node(database_url, "b") as b:
            hold = await a.locks.acquire(alone("gate"))
            transaction = a.membership.fencing.tx(Fence(hold.grants))
            tx = await transaction.__aenter__()
            await tx.run("create table late_write (x int)")
            await a.die()  # and the open transaction stays as it is: a frozen gate holder

            async def taken():
                try:
                    return await b.locks.acquire(alone("gate"))
                except LockBusy:
                    return None

            assert await eventually(taken)
            a.session.ended = None
            a.session.trusted_until = float("inf")  # only the database can refuse it now
            with pytest.raises(Exception, match=r"terminating|closed|lost|ended|stopped"):
                await transaction.__aexit__(None, None, None)
            assert await b.rows("select to_regclass('late_write') as t") == [{"t": None}]

    run(story())
