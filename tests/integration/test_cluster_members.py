"""Members, leaders and claims of real members on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from integration.nodes import LEASE, eventually, node, run
from psycopg.types.json import Jsonb

from engine_pg.clock import boottime
from engine_pg.cluster.fence import Fence
from engine_pg.cluster.locks import LockBusy, LockKey, Reason, Wanted
from engine_pg.cluster.members import end_member
from engine_pg.db.database import Database
from engine_pg.errors import EngineError, StaleTerm
from engine_pg.ids import new_id

SESSIONS = """
select 1 from pg_stat_activity where application_name = 'engine_pg lock session a'
   and datname = current_database()
"""


async def open_command(one) -> UUID:
    command_id = new_id()
    async with one.db.write() as tx:
        await tx.run(
            "insert into command (command_id, name, description, subject_kind, subject_id, params)"
            " values (%(c)s, 'test', 'a test', 'vm', %(c)s, %(p)s)",
            {"c": command_id, "p": Jsonb({})},
        )
    return command_id


@pytest.mark.quiet
def test_a_member_that_dies_is_ended_within_its_ttl_and_half_a_second(database_url):
    async def story():
        async with node(database_url, "a") as a, node(database_url, "b") as b:
            key = Wanted(LockKey("test", "crash"))
            await a.locks.acquire(key)
            await asyncio.sleep(LEASE.ttl_s * 1.5)  # b must have been well for a ttl itself
            died = boottime()
            await a.die()
            await b.locks.acquire(key, wait_s=10)
            assert LEASE.ttl_s * 0.8 < boottime() - died < LEASE.ttl_s + 0.5 + 0.3

    run(story())


@pytest.mark.quiet
def test_a_member_that_leaves_frees_everything_at_once(database_url):
    async def story():
        async with node(database_url, "b") as b, node(database_url, "a") as a:
            key = Wanted(LockKey("test", "leave"))
            await a.locks.acquire(key)
            with pytest.raises(LockBusy):
                await b.locks.acquire(key)
            left = boottime()
            await a.membership.leave()
            await b.locks.acquire(key, wait_s=5)
            assert boottime() - left < LEASE.ttl_s / 2

    run(story())


def test_who_cannot_declare_itself_leaves_no_member_and_no_session_behind(fresh_database_url):
    async def story():
        async with Database(fresh_database_url) as db:
            await db.statement("alter function member_declare rename to another")
            with pytest.raises(EngineError, match="member_declare"):
                async with node(fresh_database_url, "a"):
                    pytest.fail("it has joined")

            async def gone():
                async with db.read() as tx:
                    return not await tx.all(SESSIONS)

            async with db.read() as tx:
                assert await tx.all("select state from member") == [{"state": "ended"}]
            await eventually(gone)

    run(story())


def test_nobody_is_ended_on_an_outdated_counter(database_url):
    async def story():
        async with node(database_url, "a") as a, node(database_url, "b") as b:
            rows = "select renewal from member where member_id = %(m)s and renewal > 0"
            await eventually(lambda: a.rows(rows, m=a.member_id))
            ended = await end_member(b.db, a.member_id, renewal=0, by=b.member_id, reason="wrong")
            assert not ended
            assert a.session.trusted

    run(story())


def test_an_ended_member_ends_nobody(database_url):
    async def story():
        async with node(database_url, "a") as a, node(database_url, "b") as b:
            await a.membership.leave()
            with pytest.raises(Exception, match="was ended"):
                await end_member(a.db, b.member_id, renewal=None, by=a.member_id, reason="wrong")
            assert b.session.trusted

    run(story())


def test_each_singleton_is_led_once_and_moves_when_its_leader_dies(database_url):
    async def story():
        led: dict[str, list[tuple[str, int]]] = {}

        def singleton(who: str):
            async def lead(leadership):
                led.setdefault(leadership.name, []).append((who, leadership.term))
                await asyncio.Event().wait()

            return lead

        names = [f"singleton/{number}" for number in range(8)]
        async with (
            node(database_url, "a", singletons=dict.fromkeys(names, singleton("a"))) as a,
            node(database_url, "b", singletons=dict.fromkeys(names, singleton("b"))) as b,
        ):

            async def spread():
                held = [each["name"] for one in (a, b) for each in one.membership.leaders.held]
                return sorted(held) == names and a.membership.leaders.held

            await eventually(spread)
            await a.die()

            async def taken_over():
                return len(b.membership.leaders.held) == len(names)

            await eventually(taken_over)
            for name in names:
                terms = [term for _, term in led[name]]
                assert terms == sorted(set(terms)), "terms rise strictly"
            rows = await b.rows(
                "select name, term from leader where member_id = %(m)s", m=b.member_id
            )
            assert sorted(row["name"] for row in rows) == names

    run(story())


def test_a_write_of_a_superseded_leader_is_refused(database_url):
    async def story():
        async def lead(_leadership):
            await asyncio.Event().wait()

        async with node(database_url, "a", singletons={"alone": lead}) as a:

            async def leads():
                return a.membership.leaders.held

            held = await eventually(leads)
            fence = Fence(leadership=("alone", held[0]["term"] - 1))
            with pytest.raises(StaleTerm):
                async with a.membership.fencing.tx(fence):
                    pytest.fail("the fence let an old term in")

    run(story())


def test_a_command_is_claimed_once_and_adopted_with_its_locks_never_free(database_url):
    async def story():
        async with node(database_url, "a") as a, node(database_url, "b") as b:
            command = await open_command(a)
            claim = await a.claims.claim(command)
            assert claim is not None
            assert await b.claims.claim(command) is None
            key = Wanted(LockKey("test", "adopted"))
            hold = await a.locks.acquire(key, reason=Reason("running", command_id=command))
            claim.holds.append(hold)
            await a.die()

            async def adopted():
                with pytest.raises(LockBusy):  # whoever asks in between gets nothing
                    await b.locks.acquire(key)
                return await b.claims.claim(command)

            theirs = await eventually(adopted)
            assert theirs.attempt == claim.attempt + 1
            assert theirs.grants[0].key == key.key
            assert theirs.grants[0].token > hold.grants[0].token

            async def advisory_follows():
                rows = await b.rows("select advisory_held from lock_grant where id = 'adopted'")
                return rows[0]["advisory_held"]

            await eventually(advisory_follows)

    run(story())


def test_a_vacated_command_keeps_its_locks_for_the_adopter(database_url):
    async def story():
        async with node(database_url, "a") as a, node(database_url, "b") as b:
            command = await open_command(a)
            claim = await a.claims.claim(command)
            key = Wanted(LockKey("test", "vacated"))
            claim.holds.append(await a.locks.acquire(key, reason=Reason(command_id=command)))
            a.claims.vacate(claim)

            async def adopted():
                return await b.claims.claim(command)

            theirs = await eventually(adopted)
            assert [grant.key for grant in theirs.grants] == [key.key]

    run(story())


def test_a_frozen_member_that_thaws_learns_that_it_was_ended(database_url):
    async def story():
        async with node(database_url, "a") as a, node(database_url, "b") as b:
            ended = await end_member(
                b.db, a.member_id, renewal=None, by=b.member_id, reason="as if frozen"
            )
            assert ended

            async def knows():
                return a.session.ended

            assert "as if frozen" in str(await eventually(knows))
            assert not a.session.trusted

    run(story())
