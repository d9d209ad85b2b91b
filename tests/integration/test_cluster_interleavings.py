"""What happens between two steps of the protocol: each interleaving that could break it, forced.

A stop holds a statement at a named point while the rest of the world goes on.
"""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from integration.nodes import LEASE, eventually, node, run
from integration.stops import stop_at, stop_in
from integration.test_cluster_locks import ADVISORY, alone, cut_lock_session, together
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from engine_pg.cluster.batch import BATCH, Batch
from engine_pg.cluster.fence import ENTER, Fence, leader_gate_of
from engine_pg.cluster.locks import Grant, LockBusy, Reason
from engine_pg.cluster.members import RESUME, end_member, gate_of
from engine_pg.cluster.membership import Lease
from engine_pg.cluster.ops import Asking, Op
from engine_pg.errors import MemberEnded, OutcomeUnknown
from engine_pg.ids import new_id

PATIENT = Lease(ttl_s=5.0, margin_s=0.1, heartbeat_s=0.1)
OWN_LOCKS = "select count(*) as n from pg_locks where locktype = 'advisory' and pid = %s"


def asking(*wanted) -> Asking:
    entry = Asking(wanted, Reason())
    entry.tries, entry.waits = True, False
    return entry


async def batch(connection, member_id, session: int, *parts, sync: bool = True):
    params = Batch(parts).params() | {
        "member": member_id,
        "session": session,
        "sync": sync,
        "observe": False,
        "seen": "",
    }
    cursor = await connection.execute(BATCH, params)
    return (await cursor.fetchone())["reply"]


async def raw(url: str) -> psycopg.AsyncConnection:
    return await psycopg.AsyncConnection.connect(url, autocommit=True, row_factory=dict_row)


async def joined(connection):
    member_id = new_id()
    await connection.execute("select member_join(%s, 'raw', '60 s', '', '')", [member_id])
    return member_id


def resuming(member_id, number: int, *grants: Grant) -> dict[str, object]:
    return {
        "member": member_id,
        "session": number,
        "held": Jsonb([grant.record for grant in grants]),
        "tickets": [],
        "commands": [],
        "leaderships": Jsonb([]),
    }


async def negated(check):
    return not await check()


def test_a_statement_of_an_old_lock_session_does_nothing_when_it_thaws(database_url):
    async def story():
        async with await raw(database_url) as old, await raw(database_url) as new:
            member_id = await joined(old)
            # As if it were frozen: the order to terminate it has not arrived yet.
            await new.execute("update member set backend_pid = 0 where member_id = %s", [member_id])
            await new.execute(RESUME, resuming(member_id, 2))
            with pytest.raises(psycopg.Error, match="was succeeded by session 2"):
                await batch(old, member_id, 1, asking(alone("thaws")))
            cursor = await new.execute(OWN_LOCKS, [old.info.backend_pid])
            assert (await cursor.fetchone())["n"] == 0
            assert (await batch(new, member_id, 2, asking(alone("thaws"))))["acquired"]["tokens"]
            with pytest.raises(psycopg.Error, match="was succeeded by session 2"):
                await old.execute(RESUME, resuming(member_id, 2))

    run(story())


def test_a_grant_committed_after_the_snapshot_of_the_try_refuses(fresh_database_url):
    async def story():
        url = fresh_database_url
        async with (
            stop_in(url, "pg_try_advisory_lock_shared") as (stop, slow_url),
            node(url, "a", lease=PATIENT) as a,
            node(slow_url, "b", lease=PATIENT) as b,
        ):
            asked = asyncio.ensure_future(b.locks.acquire(together("one snapshot")))
            await stop.reached()
            await a.locks.acquire(alone("one snapshot"))
            await a.die()  # its advisory lock is free, its grant stands

            async def gone():
                return not (await b.rows(ADVISORY))[0]["n"]

            await eventually(gone)
            await stop.go()
            with pytest.raises(LockBusy, match="exclusive by a"):
                await asked
            assert (await b.rows(ADVISORY))[0]["n"] == 0

    run(story())


def test_a_batch_that_fails_leaves_no_advisory_lock_without_a_grant(fresh_database_url):
    async def story():
        async with node(fresh_database_url, "a") as a:
            lost = asyncio.get_running_loop().create_future()
            body = {"op": "claim", "command_id": "no id"}
            taken = asyncio.ensure_future(a.locks.acquire(alone("beside")))
            await asyncio.sleep(0)
            a.session.submit(Op(body, lost.set_result, lost.set_exception))
            hold = await taken
            with pytest.raises(Exception, match="uuid"):
                await lost

            async def left():
                return (await a.rows(ADVISORY))[0]["n"]

            assert await eventually(left) == 1  # it has resumed
            a.locks.release(hold)
            assert await eventually(lambda: negated(left))

    run(story())


def test_who_is_ended_while_it_acquires_gets_nothing(fresh_database_url):
    async def story():
        url = fresh_database_url
        async with node(url, "a") as a, node(url, "b") as b:
            async with stop_at(url, "lock_grant", "before insert") as stop:
                asked = asyncio.ensure_future(a.locks.acquire(alone("ending")))
                await stop.reached()  # the advisory lock is taken, the grant not written yet
                assert await end_member(
                    b.db, a.member_id, renewal=None, by=b.member_id, reason="forced"
                )
                with pytest.raises(MemberEnded):
                    await asked
            assert await b.rows("select 1 from lock_grant") == []
            await b.locks.acquire(alone("ending"), wait_s=5)

    run(story())


def test_who_acquires_while_it_is_being_ended_gets_nothing(fresh_database_url):
    async def story():
        url = fresh_database_url
        async with node(url, "a") as a, node(url, "b") as b:
            # The order to terminate a's backend misses it: only the member's row can refuse.
            await b.db.statement("update member set backend_pid = 0 where node = 'a'")
            async with stop_at(url, "member", "after update", when="new.state = 'ended'") as stop:
                ending = asyncio.ensure_future(
                    end_member(b.db, a.member_id, renewal=None, by=b.member_id, reason="forced")
                )
                await stop.reached()
                asked = asyncio.ensure_future(a.locks.acquire(alone("too late")))
                await asyncio.sleep(0.1)
                assert not asked.done()
                await stop.go()
                assert await ending
            with pytest.raises(MemberEnded):
                await asked
            assert await b.rows("select 1 from lock_grant") == []

    run(story())


def test_an_acquire_whose_answer_is_lost_is_had_once(fresh_database_url):
    async def story():
        async with node(fresh_database_url, "a") as a:
            whole, lost = a.session._ask_batch, []

            async def losing(parts, **how):
                reply = await whole(parts, **how)
                if parts.sync and not lost:
                    lost.append(reply["acquired"]["tokens"][0])
                    raise OutcomeUnknown("the answer was lost")
                return reply

            a.session._ask_batch = losing
            hold = await a.locks.acquire(alone("answer"))
            rows = await a.rows("select token from lock_grant")
            assert [row["token"] for row in rows] == [hold.grants[0].token]
            assert hold.grants[0].token > lost[0]
            assert (await a.rows(ADVISORY))[0]["n"] == 1

    run(story())


def test_a_release_that_was_lost_is_repeated_by_the_resume(fresh_database_url):
    async def story():
        url = fresh_database_url
        async with node(url, "a") as a, node(url, "b") as b:
            hold = await a.locks.acquire(alone("given back"))
            a.session.submit = lambda _part: None  # what a crash does to an asynchronous commit
            a.locks.release(hold)
            del a.session.submit
            with pytest.raises(LockBusy):
                await b.locks.acquire(alone("given back"))
            await cut_lock_session(b, a)
            await b.locks.acquire(alone("given back"), wait_s=5)

    run(story())


def test_tokens_rise_though_the_sequence_stepped_back_in_a_crash(fresh_database_url):
    async def story():
        url = fresh_database_url
        async with node(url, "a") as a:
            before = []
            for _ in range(5):
                hold = await a.locks.acquire(alone("rises"))
                before.append(hold.grants[0].token)
                a.locks.release(hold)
            # As a crash restart leaves it: a new life of shared memory, the sequence's tail gone.
            await a.db.statement("select setval('fencing_token_seq', 1, false)")
            await a.db.statement("delete from cluster_epoch_marker")
            await cut_lock_session(a, a)
            hold = await a.locks.acquire(alone("rises"), wait_s=5)
            assert hold.grants[0].token > max(before)

    run(story())


def test_a_fence_that_sees_an_old_snapshot_is_refused(database_url):
    async def story():
        async with node(database_url, "a") as a, await raw(database_url) as connection:
            hold = await a.locks.acquire(alone("snapshot"))
            params = a.membership.fencing._params(Fence(hold.grants))
            for level in ("repeatable read", "serializable"):
                await connection.execute(f"begin isolation level {level}")
                with pytest.raises(psycopg.Error, match="READ COMMITTED"):
                    await connection.execute(ENTER, params)
                await connection.execute("rollback")
            await connection.execute("begin")
            await connection.execute("create table not_first (x int)")
            with pytest.raises(psycopg.Error, match="first statement"):
                await connection.execute(ENTER, params)
            await connection.execute("rollback")

    run(story())


def test_an_ending_waits_for_a_fenced_write_that_is_under_way(fresh_database_url):
    async def story():
        async with node(fresh_database_url, "a") as a, node(fresh_database_url, "b") as b:
            hold = await a.locks.acquire(alone("under way"))
            async with a.membership.fencing.tx(Fence(hold.grants)) as tx:
                await tx.run("create table written (x int)")
                ending = asyncio.ensure_future(
                    end_member(b.db, a.member_id, renewal=None, by=b.member_id, reason="forced")
                )

                async def at_the_gate():
                    return await b.rows(
                        "select 1 from pg_stat_activity where state = 'active' and query like"
                        " '%%member_end(%%' and pid <> pg_backend_pid()"
                    )

                await eventually(at_the_gate)
                assert await b.rows("select 1 from member where node = 'a' and state = 'live'")
            assert await ending
            assert await b.rows("select to_regclass('written') is not null as there") == [
                {"there": True}
            ]
            with pytest.raises(MemberEnded):
                async with a.membership.fencing.tx(Fence(hold.grants)):
                    pytest.fail("the fence let an ended member in")

    run(story())


def test_nobody_leads_while_a_write_of_the_term_before_is_under_way(fresh_database_url):
    async def story():
        url = fresh_database_url
        async with node(url, "a") as a, node(url, "b") as b:
            await a.db.statement(
                "insert into leader (name, member_id, term) values ('x', %(m)s, 1)",
                {"m": a.member_id},
            )
            body = {"op": "win", "name": "x", "term": 1, "gate": leader_gate_of("x")}

            async def win():
                won = asyncio.get_running_loop().create_future()
                b.session.submit(Op(body, won.set_result, won.set_exception))
                return (await won)["ok"]

            async with a.membership.fencing.tx(Fence(leadership=("x", 1))):
                await b.db.statement("update leader set member_id = null where name = 'x'")
                assert not await win()
            assert await win()

    run(story())


def test_a_batch_is_a_renewal(fresh_database_url):
    async def story():
        rare = Lease(ttl_s=40.0, margin_s=1.0, heartbeat_s=10.0)
        async with node(fresh_database_url, "a", lease=rare) as a:
            renewal = "select renewal from member where node = 'a'"
            before, trusted = (await a.rows(renewal))[0]["renewal"], a.session.trusted_until
            for turn in range(3):
                await a.locks.acquire(alone(f"renews {turn}"))
            assert (await a.rows(renewal))[0]["renewal"] >= before + 3
            assert a.session.trusted_until > trusted

    run(story())


def test_two_members_of_one_node_name_are_two(fresh_database_url):
    async def story():
        url = fresh_database_url
        async with node(url, "same") as a, node(url, "same") as b:
            hold = await a.locks.acquire(alone("mine"))
            with pytest.raises(LockBusy):
                await b.locks.acquire(alone("mine"))
            await asyncio.sleep(LEASE.ttl_s * 1.5)
            assert a.session.trusted
            assert b.session.trusted
            await b.membership.leave()
            assert gate_of(a.member_id) != gate_of(b.member_id)
            async with a.membership.fencing.tx(Fence(hold.grants)):
                pass

    run(story())
