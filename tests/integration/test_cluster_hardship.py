"""What befalls members between two steps of the protocol, forced to happen, not waited for."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from integration.nodes import LEASE, eventually, node, run
from integration.test_cluster_members import open_command

from engine_pg.cluster.locks import LockBusy, LockKey, Reason, Wanted
from engine_pg.cluster.ops import Op
from engine_pg.errors import EngineError, OutcomeUnknown
from engine_pg.ids import hash64

END = "update command set state = 'succeeded', ended_at = now() where command_id = %(c)s"


async def claimed(one, name: str):
    command = await open_command(one)
    claim = await one.claims.claim(command)
    key = Wanted(LockKey("test", name))
    claim.holds.append(await one.locks.acquire(key, reason=Reason(command_id=command)))
    return command, claim, key


def test_a_vacated_command_leaves_no_advisory_lock_behind(database_url):
    async def story():
        async with node(database_url, "a") as a, node(database_url, "b") as b:
            command, claim, key = await claimed(a, "vacated and ended")
            a.claims.vacate(claim)
            theirs = await eventually(lambda: b.claims.claim(command))
            await b.db.statement(END, {"c": command})
            b.claims.finish(theirs)
            await b.locks.acquire(key, wait_s=5)  # a lives on, and must not stand in the way

    run(story())


def test_vacating_a_command_that_is_over_frees_what_it_held(database_url):
    async def story():
        async with node(database_url, "a") as a, node(database_url, "b") as b:
            command, claim, key = await claimed(a, "ended and vacated")
            await a.db.statement(END, {"c": command})
            a.claims.vacate(claim)
            await b.locks.acquire(key, wait_s=5)

    run(story())


def test_grants_that_await_an_adopter_of_an_ended_command_are_swept(database_url):
    async def story():
        async with node(database_url, "a") as a, node(database_url, "b") as b:
            command, _, key = await claimed(a, "swept")
            await a.die()

            async def vacant():
                return await b.rows(
                    "select 1 from lock_grant where id = 'swept' and member_id is null"
                )

            await eventually(vacant)
            await b.db.statement(END, {"c": command})
            with pytest.raises(LockBusy):
                await b.locks.acquire(key)
            await b.db.statement("select lock_grants_sweep()")
            await b.locks.acquire(key)

    run(story())


def test_a_sweep_does_not_wait_for_a_grant_that_somebody_has_a_hand_on(database_url):
    async def story():
        connect = psycopg.AsyncConnection.connect
        async with node(database_url, "a") as a, await connect(database_url) as operator:
            command, _, _ = await claimed(a, "in a hand")
            await a.db.statement(END, {"c": command})
            await a.db.statement(
                "update lock_grant set member_id = null, advisory_held = false"
                " where command_id = %(c)s",
                {"c": command},
            )
            await operator.execute(
                "select from lock_grant where command_id = %s for update", [command]
            )
            async with a.db.write() as tx:
                await tx.run("set local lock_timeout = '1s'")
                assert await tx.all("select lock_grants_sweep() as swept") == [{"swept": 0}]
            await operator.rollback()
            async with a.db.write() as tx:
                assert await tx.all("select lock_grants_sweep() as swept") == [{"swept": 1}]

    run(story())


def test_a_resignation_that_got_lost_does_not_bar_the_member_from_leading_again(fresh_database_url):
    preferred = next(n for n in map("b{}".format, range(99)) if hash64(f"x@{n}") > hash64("x@a"))

    async def lead(_leadership):
        await asyncio.Event().wait()

    async def story():
        async with node(fresh_database_url, "a", singletons={"x": lead}) as a:

            async def led_by(one):
                rows = await a.rows("select member_id from leader where name = 'x'")
                return rows[0]["member_id"] == one.member_id

            await eventually(lambda: led_by(a))
            whole, lost = a.session._ask_batch, asyncio.Event()

            async def losing(batch, **how):
                if not lost.is_set() and any(
                    isinstance(op, Op) and op.body["op"] == "resign" for op in batch.parts
                ):
                    lost.set()
                    raise OutcomeUnknown("the connection was cut")
                return await whole(batch, **how)

            a.session._ask_batch = losing
            async with node(fresh_database_url, preferred, singletons={"x": lead}) as b:
                await eventually(lambda: led_by(b))
                assert lost.is_set()
            await eventually(lambda: led_by(a))

    run(story())


def test_one_blocked_command_does_not_hold_up_the_other_locks_of_its_node(database_url):
    async def story():
        async with (
            node(database_url, "a") as a,
            await psycopg.AsyncConnection.connect(database_url) as operator,
        ):
            command = await open_command(a)
            await operator.execute(
                "select from command where command_id = %s for update", [command]
            )
            assert await a.claims.claim(command) is None
            await a.locks.acquire(Wanted(LockKey("test", "unrelated")))
            assert a.session.measures.resumes == 0
            await operator.rollback()
            assert await a.claims.claim(command)

    run(story())


def test_an_operation_that_fails_its_batch_fails_alone(database_url):
    async def story():
        async with node(database_url, "a") as a:
            async with asyncio.TaskGroup() as group:
                bad = group.create_task(fails(a, {"op": "claim", "command_id": "no id"}))
                good = [
                    group.create_task(a.locks.acquire(Wanted(LockKey("test", f"good {n}"))))
                    for n in range(5)
                ]
            assert bad.result()
            assert len({each.result().grants[0].token for each in good}) == 5
            assert a.session.trusted

    run(story())


async def fails(one, body) -> bool:
    asked = asyncio.get_running_loop().create_future()
    one.session.submit(Op(body, asked.set_result, asked.set_exception))
    with pytest.raises(EngineError, match="uuid"):
        await asked
    return True


def test_a_member_whose_row_is_blocked_costs_its_undertaker_nothing(database_url):
    async def story():
        async with (
            node(database_url, "a") as a,
            node(database_url, "b") as b,
            await psycopg.AsyncConnection.connect(database_url) as operator,
        ):
            await asyncio.sleep(LEASE.ttl_s * 1.5)
            await operator.execute(
                "select from member where member_id = %s for update", [b.member_id]
            )
            await b.die()
            resumes = a.session.measures.resumes
            for _ in range(60):  # three leases long
                await asyncio.sleep(0.05)
                assert a.session.trusted
            assert a.session.measures.resumes == resumes
            await operator.rollback()

            async def ended():
                rows = await a.rows(
                    "select state from member where member_id = %(m)s", m=b.member_id
                )
                return rows[0]["state"] == "ended"

            await eventually(ended)

    run(story())
