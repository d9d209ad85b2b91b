"""Heartbeats: small statements that check all that a batch checks, and who looks how often."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import psycopg
import pytest
from integration.nodes import eventually, node, run
from integration.test_cluster_locks import alone
from psycopg.rows import dict_row

from engine_pg.cluster.members import LOOK, RENEW, reply_of
from engine_pg.ids import new_id

RENEWED = """
select extract(epoch from renewed_at)::float8 as at, renewal
  from member where member_id = %(member)s
"""
RENEWAL = "select renewal from member where member_id = %s"


async def raw(url: str) -> psycopg.AsyncConnection:
    return await psycopg.AsyncConnection.connect(url, autocommit=True, row_factory=dict_row)


async def joined(connection, name: str):
    member_id = new_id()
    await connection.execute("select member_join(%s, %s, '60 s', '', '')", [member_id, name])
    return member_id


async def asked(connection, query, member_id, session: int = 1):
    cursor = await connection.execute(query, {"member": member_id, "session": session})
    return await cursor.fetchone()


async def renewal_of(connection, member_id) -> int:
    return (await (await connection.execute(RENEWAL, [member_id])).fetchone())["renewal"]


def test_a_heartbeat_tells_the_same_as_a_whole_look(fresh_database_url):
    async def story():
        async with await raw(fresh_database_url) as connection:
            members = [await joined(connection, name) for name in "abc"]
            await connection.execute(
                "insert into leader (name, revision) values ('x', 3), ('y', 4)"
            )
            beat = await asked(connection, RENEW, members[0])
            assert beat["complete"]
            assert await renewal_of(connection, members[0]) == 1
            between = await asked(connection, LOOK, members[1])
            cursor = await connection.execute("select cluster_view('') as look")
            look = (await cursor.fetchone())["look"]
            assert reply_of(beat)["view"]["seen"] == look["seen"]
            assert reply_of(beat)["view"]["counters"].keys() == look["counters"].keys()
            assert reply_of(between)["view"] == {"counters": look["counters"]}

    run(story())


@pytest.mark.parametrize("why", ["another session", "ended", "unknown", "repeatable read"])
def test_a_heartbeat_that_must_not_renew_renews_nothing(fresh_database_url, why):
    async def story():
        async with await raw(fresh_database_url) as connection:
            member_id, session = await joined(connection, "a"), 1
            await joined(connection, "b")
            asking = member_id
            if why == "another session":
                session = 2
            elif why == "ended":
                await connection.execute("update member set state = 'ended' where node = 'a'")
            elif why == "unknown":
                asking = new_id()
            else:
                await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
                await connection.execute("set default_transaction_isolation = 'repeatable read'")
            assert not (await asked(connection, RENEW, asking, session))["complete"]
            if why != "repeatable read":
                assert not (await asked(connection, LOOK, asking, session))["complete"]
            assert await renewal_of(connection, member_id) == 0

    run(story())


def test_a_renewal_waits_for_who_keeps_the_row_and_then_looks_at_the_number(fresh_database_url):
    async def story():
        url = fresh_database_url
        async with await raw(url) as old, await raw(url) as new:
            member_id = await joined(old, "a")
            async with new.transaction():
                await new.execute("update member set session_number = 2")
                late = asyncio.ensure_future(asked(old, RENEW, member_id))
                waits = "select 1 from pg_locks where not granted"

                async def waiting():
                    return await (await new.execute(waits)).fetchone()

                await eventually(waiting)
            assert not (await late)["complete"]
            assert await renewal_of(new, member_id) == 0

    run(story())


def test_a_grant_without_its_advisory_lock_gets_it_with_a_heartbeat(fresh_database_url):
    async def story():
        async with node(fresh_database_url, "a") as a:
            await a.locks.acquire(alone("followed"))
            await a.db.statement("update lock_grant set advisory_held = false")
            await eventually(lambda: a.rows("select 1 as yes from lock_grant where advisory_held"))

    run(story())


def test_each_member_renews_at_its_instant_of_the_databases_clock(fresh_database_url):
    async def story():
        async with AsyncExitStack() as stack:
            nodes = [
                await stack.enter_async_context(node(fresh_database_url, name)) for name in "abcd"
            ]

            async def in_time(one) -> bool:
                session = one.session
                (row,) = await one.rows(RENEWED, member=session.identity.member_id)
                heartbeats = session._heartbeats
                late = (row["at"] / heartbeats.period_s - heartbeats._mine) % 1.0
                return row["renewal"] > 2 and min(late, 1.0 - late) < 0.1

            async def all_in_time() -> bool:
                return all([await in_time(one) for one in nodes])

            await eventually(all_in_time)

    run(story())


def test_the_three_eldest_look_between_their_renewals_unless_many_renew(fresh_database_url):
    async def story():
        async with AsyncExitStack() as stack:
            nodes = [
                await stack.enter_async_context(node(fresh_database_url, name)) for name in "abcd"
            ]

            def looking(*expected: bool):
                async def check():
                    return tuple(one.session.looks_often for one in nodes) == expected

                return check

            await eventually(looking(True, True, True, False))
            await nodes[1].membership.leave()
            nodes.pop(1)
            await eventually(looking(True, True, True))
            # Six that renew every 100 ms look as often together as three every 50 ms.
            for name in "efg":
                nodes.append(await stack.enter_async_context(node(fresh_database_url, name)))
            await eventually(looking(*[False] * 6))
            await nodes[5].membership.leave()
            nodes.pop(5)
            await eventually(looking(True, True, True, False, False))

    run(story())
