"""Locks that an operator breaks: what ran under them ends first, and somebody can read it later."""

from __future__ import annotations

import asyncio

import pytest
from integration.nodes import LEASE, eventually, node, run
from integration.stops import stop_at
from integration.test_cluster_hardship import claimed
from integration.test_cluster_interleavings import PATIENT, raw
from integration.test_cluster_locks import ADVISORY, alone, together

from engine_pg.cluster.breaking import break_lock
from engine_pg.cluster.fence import Fence
from engine_pg.cluster.locks import LockBusy
from engine_pg.cluster.members import gate_of
from engine_pg.errors import Invalid, MemberEnded, NotFound, StaleToken

BATCH_WAITS = """
select 1 from pg_stat_activity where query like '%%cluster_batch%%' and wait_event_type = 'Lock'
   and wait_event = 'transactionid' and datname = current_database()
"""
VACANT = "select 1 from lock_grant where id = %(id)s and member_id is null"
WHO = {"by": "admin@internal", "reason": "it hangs"}


async def vacated(one, name: str):
    """Return a command that awaits an adopter, and the key of the grant that stands for it."""
    command, claim, key = await claimed(one, name)
    one.claims.vacate(claim)

    async def stands():
        return await one.rows(VACANT, id=name)

    await eventually(stands)
    return command, key


def test_the_body_under_a_broken_lock_is_cancelled_before_somebody_else_gets_it(database_url):
    async def story():
        async with node(database_url, "a") as a, node(database_url, "b") as b:
            kept = await a.locks.acquire(alone("unbroken"))
            running, stopped = asyncio.Event(), []

            async def work():
                async with a.locks.holding(alone("broken")):
                    running.set()
                    try:
                        await asyncio.Event().wait()
                    finally:
                        with pytest.raises(LockBusy):
                            await b.locks.acquire(alone("broken"))
                        stopped.append(True)

            working = asyncio.ensure_future(work())
            await running.wait()
            broken = await break_lock(b.db, alone("broken").key, **WHO)
            assert [each.forced for each in broken] == [False]
            assert stopped
            with pytest.raises(StaleToken, match="broken by admin@internal"):
                await working
            await b.locks.acquire(alone("broken"), wait_s=5)
            assert kept.lost is None
            async with a.membership.fencing.tx(Fence(kept.grants)):
                pass

    run(story())


def test_no_fence_rests_on_a_broken_grant_and_a_deaf_holder_loses_it(database_url):
    async def story():
        async with node(database_url, "a") as a, node(database_url, "b") as b:
            hold = await a.locks.acquire(alone("deaf"))  # and nobody looks whether it is lost
            breaking = asyncio.ensure_future(break_lock(b.db, alone("deaf").key, **WHO))
            await eventually(lambda: asyncio.sleep(0, hold.lost))
            with pytest.raises(StaleToken):
                async with a.membership.fencing.tx(Fence(hold.grants)):
                    pytest.fail("the fence let a broken grant in")
            assert [each.forced for each in await breaking] == [True]
            await b.locks.acquire(alone("deaf"), wait_s=5)

    run(story())


def test_a_command_whose_lock_is_broken_is_over_and_the_audit_says_why(database_url):
    async def story():
        async with node(database_url, "a") as a, node(database_url, "b") as b:
            command, _, key = await claimed(a, "command's")
            breaking = asyncio.ensure_future(break_lock(b.db, key.key, **WHO))

            async def over():
                return await b.rows(
                    "select state, error_kind from command where command_id = %(c)s"
                    " and ended_at is not null",
                    c=command,
                )

            assert (await eventually(over))[0] == {"state": "unknown", "error_kind": "LockBroken"}
            await breaking
            events = await b.rows(
                "select description, user_name from event where command_id = %(c)s", c=command
            )
            assert events[0]["user_name"] == "admin@internal"
            assert "test/command's" in events[0]["description"]
            assert "it hangs" in events[0]["description"]
            await b.locks.acquire(key, wait_s=5)

    run(story())


def test_a_grant_that_awaits_an_adopter_can_be_broken(database_url):
    async def story():
        async with node(database_url, "a") as a, node(database_url, "b") as b:
            command, key = await vacated(a, "vacant")
            await break_lock(b.db, key.key, **WHO)
            assert await b.claims.claim(command) is None
            await b.locks.acquire(key, wait_s=5)

    run(story())


def test_one_of_several_shared_holders_is_broken_by_its_token(database_url):
    async def story():
        async with node(database_url, "a") as a, node(database_url, "b") as b:
            mine = await a.locks.acquire(together("some"))
            theirs = await b.locks.acquire(together("some"))
            await break_lock(b.db, together("some").key, token=mine.grants[0].token, **WHO)
            assert mine.lost is not None
            assert theirs.lost is None

    run(story())


def test_breaking_what_nobody_holds_or_without_a_reason_is_refused(database_url):
    async def story():
        async with node(database_url, "a") as a:
            with pytest.raises(NotFound):
                await break_lock(a.db, alone("free").key, **WHO)
            with pytest.raises(Invalid):
                await break_lock(a.db, alone("free").key, by="admin", reason=" ")

    run(story())


def test_the_body_under_a_lock_is_cancelled_when_the_member_is_ended(database_url):
    async def story():
        async with node(database_url, "a") as a:
            running = asyncio.Event()

            async def work():
                async with a.locks.holding(alone("ended")):
                    running.set()
                    await asyncio.Event().wait()

            working = asyncio.ensure_future(work())
            await running.wait()
            await a.die()
            with pytest.raises(MemberEnded):
                await working

    run(story())


def test_a_holder_whose_lock_is_broken_hears_of_it_however_long_the_commit_takes(database_url):
    async def story():
        url = database_url
        async with node(url, "a") as a, node(url, "b") as b:
            hold = await a.locks.acquire(alone("slow commit"))
            told = asyncio.Event()
            hold.when_lost(told.set)
            async with stop_at(
                url, "lock_grant", "after update", when="new.broken_at is not null", commit=True
            ) as stop:
                breaking = asyncio.ensure_future(break_lock(b.db, alone("slow commit").key, **WHO))
                await stop.reached()
                await asyncio.sleep(LEASE.ttl_s / 4)  # time enough for a resume, were it cut now
                await stop.go()
                async with asyncio.timeout(LEASE.ttl_s):
                    await told.wait()
            a.locks.release(hold)
            assert [each.forced for each in await breaking] == [False]

    run(story())


def test_a_deaf_holder_that_resumes_during_the_deletion_keeps_no_advisory_lock(fresh_database_url):
    async def story():
        url = fresh_database_url
        async with node(url, "a") as a, node(url, "b") as b:
            hold = await a.locks.acquire(alone("deaf"))
            async with stop_at(
                url, "lock_grant", "before delete", when="old.broken_at is not null"
            ) as stop:
                breaking = asyncio.ensure_future(break_lock(b.db, alone("deaf").key, **WHO))
                await stop.reached()
                await asyncio.sleep(LEASE.ttl_s / 4)  # time enough for a resume, were it let
                await stop.go()
                assert [each.forced for each in await breaking] == [True]

            async def resumed():
                return a.session.trusted and not (await b.rows(ADVISORY))[0]["n"]

            assert await eventually(resumed)
            a.locks.release(hold)
            await b.locks.acquire(alone("deaf"), wait_s=5)

    run(story())


def test_a_grant_that_was_given_back_meanwhile_is_not_called_broken(database_url):
    async def story():
        url = database_url
        async with node(url, "a") as a, await raw(url) as other:
            hold = await a.locks.acquire(alone("given back"))
            gate = [gate_of(a.member_id)]
            await other.execute("select pg_advisory_lock(7001, %s)", gate)
            breaking = asyncio.ensure_future(break_lock(a.db, alone("given back").key, **WHO))

            async def at_the_gate():
                return await a.rows(
                    "select 1 from pg_stat_activity where query like '%%lock_break(%%'"
                    " and state = 'active' and pid <> pg_backend_pid()"
                )

            async def given_back():
                return not await a.rows("select 1 from lock_grant where id = 'given back'")

            await eventually(at_the_gate)
            a.locks.release(hold)
            await eventually(given_back)
            await other.execute("select pg_advisory_unlock(7001, %s)", gate)
            with pytest.raises(NotFound, match="given back or taken over"):
                await breaking

    run(story())


def broken_meanwhile(name: str) -> dict[str, str]:
    """Return where a stop holds who breaks a lock: it has the grant, its command not yet ended."""
    return {"event": "after update", "when": f"new.broken_at is not null and new.id = '{name}'"}


def test_breaking_and_claiming_do_not_wait_for_each_other(database_url):
    async def story():
        url = database_url
        async with node(url, "a") as a, node(url, "b") as b:
            command, key = await vacated(a, "claimed")
            async with stop_at(url, "lock_grant", **broken_meanwhile("claimed")) as stop:
                breaking = asyncio.ensure_future(break_lock(a.db, key.key, **WHO))
                await stop.reached()
                async with asyncio.timeout(LEASE.ttl_s / 2):
                    assert await b.claims.claim(command) is None
                await stop.go()
                assert [each.token for each in await breaking]
            assert await b.claims.claim(command) is None
            assert b.session._number == 1  # nobody's batch failed

    run(story())


def test_breaking_and_giving_up_a_command_wait_in_one_order(database_url, caplog):
    async def story():
        url = database_url
        async with node(url, "a", lease=PATIENT) as a, node(url, "b", lease=PATIENT) as b:
            command, claim, key = await claimed(a, "given up")
            async with stop_at(url, "lock_grant", **broken_meanwhile("given up")) as stop:
                breaking = asyncio.ensure_future(break_lock(b.db, key.key, **WHO))
                await stop.reached()
                a.claims.vacate(claim)

                async def waits():
                    return await b.rows(BATCH_WAITS)

                await eventually(waits)
                await stop.go()
                assert [each.forced for each in await breaking] == [False]
            await b.locks.acquire(key, wait_s=5)
            assert await b.claims.claim(command) is None
            assert "deadlock" not in caplog.text

    run(story())
