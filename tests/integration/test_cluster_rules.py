"""Rules of the protocol, one test each, that only a fault in the right line breaks.

Where two rules stand in for each other, the test takes the other one away.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager

import psycopg
import pytest
from integration.nodes import LEASE, eventually, node, run
from integration.stops import stop_at, stop_in
from integration.test_cluster_breaking import WHO
from integration.test_cluster_hardship import claimed
from integration.test_cluster_interleavings import (
    OWN_LOCKS,
    PATIENT,
    asking,
    batch,
    joined,
    raw,
    resuming,
)
from integration.test_cluster_locks import ADVISORY, alone, cut_lock_session, together
from integration.test_cluster_members import open_command
from integration.test_cluster_waiting import TICKETS, waiting
from psycopg.types.json import Jsonb

from engine_pg.cluster import requests
from engine_pg.cluster.batch import BATCH
from engine_pg.cluster.breaking import break_lock
from engine_pg.cluster.connection import SessionConnection
from engine_pg.cluster.fence import ENTER, Fence
from engine_pg.cluster.keys import Grant, Mode
from engine_pg.cluster.locks import LockBusy
from engine_pg.cluster.members import RENEW, RESUME, end_member, gate_of
from engine_pg.cluster.membership import Lease
from engine_pg.cluster.ops import Releasing
from engine_pg.db.database import Database
from engine_pg.errors import EngineError, MemberEnded, OutcomeUnknown
from engine_pg.ids import new_id

RARE = Lease(ttl_s=40.0, margin_s=1.0, heartbeat_s=10.0)
SHUT = "select pg_advisory_lock(7001, %s)"
OPEN = "select pg_advisory_unlock(7001, %s)"
SHUT_FOR_ALL = "select gate_shut(%(gate)s)"
AT_THE_GATE = """
select 1 from pg_stat_activity where wait_event = 'PgSleep' and query like %(call)s
   and datname = current_database()
"""
GATE_AWAITED = """
select 1 from pg_locks where locktype = 'advisory' and classid = 7001 and not granted
   and database = (select oid from pg_database where datname = current_database())
"""
UNLOGGED = """
select relname from pg_class where relkind in ('r', 'S') and relpersistence <> 'p'
   and relnamespace = 'public'::regnamespace
"""
LEFT = """
select 'grant' as what from lock_grant where member_id = %(m)s
union all select 'ticket' from lock_ticket where member_id = %(m)s
union all select 'leadership' from leader where member_id = %(m)s
"""
RENEWAL = "select renewal from member where member_id = %(m)s"
IN_DOUBT = "select pid from pg_stat_activity where wait_event = 'SyncRep' and application_name = %s"


@pytest.fixture
def no_again(monkeypatch):
    """Let nobody ask again by himself."""
    monkeypatch.setattr(requests, "_AGAIN_S", 1000.0)
    monkeypatch.setattr(requests, "_SLOWEST_AGAIN_S", 1000.0)


async def truth(value) -> object:
    return value


async def in_line(one) -> None:
    """Wait until the member's one request stands in line, its second try behind it."""

    async def there():
        return any(each.ticket and not each._under_way for each in one.locks._requests)

    await eventually(there)


async def end(member, by, renewal: int | None = None) -> bool:
    return await end_member(
        by.db, member.member_id, renewal=renewal, by=by.member_id, reason="forced"
    )


@pytest.fixture
def losing(monkeypatch):
    """Lose the answer to one statement of the lock sessions; told which, from then on."""
    whole, lost = SessionConnection.ask, []

    def lose(query, **sent) -> None:
        async def once(self, asked, params, *bound_s):
            reply = await whole(self, asked, params, *bound_s)
            if asked == query and not lost and sent.items() <= params.items():
                lost.append(True)
                raise OutcomeUnknown("the answer was lost")
            return reply

        monkeypatch.setattr(SessionConnection, "ask", once)

    return lose


# Fences and gates


def test_a_fence_that_waited_for_an_ending_is_refused(fresh_database_url):
    async def story():
        url = fresh_database_url
        async with node(url, "a") as a, await raw(url) as ender, await raw(url) as writer:
            await ender.execute("begin")
            await ender.execute("select pg_advisory_xact_lock(7001, %s)", [gate_of(a.member_id)])
            await writer.execute("begin")
            params = a.membership.fencing._params(Fence())
            entering = asyncio.ensure_future(writer.execute(ENTER, params))
            await eventually(lambda: a.rows(GATE_AWAITED))
            await ender.execute(
                "update member set state = 'ended', ended_at = now() where member_id = %s",
                [a.member_id],
            )
            await ender.execute("commit")
            with pytest.raises(psycopg.Error, match="was ended"):
                await entering
            await writer.execute("rollback")

    run(story())


def test_a_frozen_holder_of_a_gate_does_not_block_the_ending(fresh_database_url):
    async def story():
        url = fresh_database_url
        async with node(url, "a") as a, node(url, "b") as b, await raw(url) as frozen:
            await frozen.execute("begin")
            await frozen.execute(ENTER, a.membership.fencing._params(Fence()))
            assert await end(a, b)
            with pytest.raises(psycopg.OperationalError):
                await frozen.execute("commit")

    run(story())


@pytest.mark.parametrize("who", ["another ender", "a drain"])
def test_who_freezes_with_the_gate_for_himself_holds_nobody_up_for_long(fresh_database_url, who):
    idle_s = 0.8

    async def story():
        url = fresh_database_url
        async with (
            node(url, "a", lease=PATIENT) as a,
            node(url, "b", lease=PATIENT) as b,
            Database(url, idle_in_transaction_s=idle_s) as theirs,
        ):
            writing = theirs.write()
            tx = await writing.__aenter__()
            await tx.run(SHUT_FOR_ALL, {"gate": gate_of(a.member_id)})  # and no commit follows
            async with asyncio.timeout(idle_s + 2):
                if who == "a drain":
                    await a.membership.fencing._drain()
                else:
                    assert await end(a, b)
            with pytest.raises(EngineError):
                await writing.__aexit__(None, None, None)

    run(story())


def test_a_break_waits_for_the_gate_of_the_holder(fresh_database_url):
    async def story():
        url = fresh_database_url
        async with node(url, "a") as a, node(url, "b") as b, await raw(url) as ender:
            hold = await a.locks.acquire(alone("gated"))
            await ender.execute(SHUT, [gate_of(a.member_id)])
            breaking = asyncio.ensure_future(break_lock(b.db, alone("gated").key, **WHO))

            async def begun():
                broken = await b.rows("select 1 from lock_grant where broken_at is not null")
                return broken or await b.rows(AT_THE_GATE, call="%lock_break(%")

            await eventually(begun)
            assert await b.rows("select broken_at from lock_grant") == [{"broken_at": None}]
            await ender.execute(OPEN, [gate_of(a.member_id)])
            await eventually(lambda: truth(hold.lost))
            a.locks.release(hold)
            assert [each.forced for each in await breaking] == [False]

    run(story())


# Grants


def test_what_must_outlive_a_crash_is_logged(fresh_database_url):
    async def story():
        async with node(fresh_database_url, "a") as a:
            unlogged = {each["relname"] for each in await a.rows(UNLOGGED)}
            assert unlogged == {"cluster_epoch_marker", "feed_reader"}

    run(story())


@pytest.mark.parametrize("mode", [together, alone])
@pytest.mark.parametrize(
    "befalls",
    [
        "update member set expires_at = now() - interval '1 h' where node = 'raw'",
        "update member set state = 'ended' where node = 'raw'",
        "update lock_grant set member_id = null, command_id = gen_random_uuid()",
    ],
    ids=["overdue", "ended", "adoptable"],
)
def test_a_grant_refuses_whatever_the_state_of_its_member(befalls, mode, fresh_database_url):
    async def story():
        url = fresh_database_url
        async with node(url, "b") as b:
            async with await raw(url) as connection:
                await batch(connection, await joined(connection), 1, asking(mode("stands")))
            await b.db.statement(befalls)

            async def advisory_lock_is_free():
                return not (await b.rows(ADVISORY))[0]["n"]

            await eventually(advisory_lock_is_free)
            with pytest.raises(LockBusy):
                await b.locks.acquire(alone("stands"))

    run(story())


def test_two_grants_of_a_key_given_back_at_once_leave_no_advisory_lock(fresh_database_url):
    async def story():
        async with node(fresh_database_url, "a") as a:
            holds = [await a.locks.acquire(together("twice")) for _ in range(2)]
            for hold in holds:
                a.locks.release(hold)

            async def given_back():
                return not await a.rows("select 1 from lock_grant")

            await eventually(given_back)
            assert (await a.rows(ADVISORY))[0]["n"] == 0

    run(story())


def test_of_two_tasks_that_ask_in_one_batch_one_is_refused(fresh_database_url):
    async def story():
        async with node(fresh_database_url, "a") as a:
            asked = [
                asyncio.ensure_future(a.locks.acquire(each("one batch")))
                for each in (together, alone)
            ]
            await asyncio.wait(asked)
            assert [type(each.exception()) for each in asked] == [type(None), LockBusy]

    run(story())


def test_a_grant_that_meets_a_cancelled_caller_is_handed_back(fresh_database_url):
    async def story():
        url = fresh_database_url
        async with node(url, "a", lease=PATIENT) as a:
            async with stop_at(url, "lock_grant", "before insert") as stop:
                asked = asyncio.ensure_future(a.locks.acquire(alone("nobody's")))
                await stop.reached()
                asked.cancel()
                await asyncio.wait([asked])
            await a.locks.acquire(alone("another"))  # and so the first was answered

            async def only_that():
                return [row["id"] for row in await a.rows("select id from lock_grant")] == [
                    "another"
                ]

            await eventually(only_that)
            assert [grant.key.id for grant in a.locks.held] == ["another"]

    run(story())


# Waiting


@pytest.mark.usefixtures("no_poll")
def test_who_waits_at_the_instant_of_an_unlock_is_rung(fresh_database_url):
    async def story():
        url = fresh_database_url
        async with (
            stop_in(url, "pg_advisory_unlock") as (stop, slow_url),
            node(slow_url, "a", lease=PATIENT) as a,
            node(url, "b", lease=PATIENT) as b,
        ):
            a.locks.release(await a.locks.acquire(alone("instant")))
            await stop.reached()  # it gives the lock back, and has not unlocked yet
            asked = asyncio.ensure_future(b.locks.acquire(alone("instant"), wait_s=20))
            await in_line(b)
            await stop.go()
            async with asyncio.timeout(5):
                await asked

    run(story())


@asynccontextmanager
async def probed(url):
    """Stop a's batch while it holds the advisory lock of x, which it will not get: y is b's."""
    async with node(url, "a", lease=PATIENT) as a, node(url, "b", lease=PATIENT) as b:
        await b.locks.acquire(alone("y"))
        async with stop_at(url, "lock_grant", "before insert", when="new.id = 'z'") as stop:
            refused = asyncio.ensure_future(a.locks.acquire(alone("x"), alone("y")))
            granted = asyncio.ensure_future(a.locks.acquire(alone("z")))
            await stop.reached()
            yield b, stop
            await granted
            with pytest.raises(LockBusy):
                await refused


@pytest.mark.usefixtures("no_poll", "no_again")
def test_who_failed_for_the_sake_of_a_refused_request_is_rung(fresh_database_url):
    async def story():
        async with probed(fresh_database_url) as (b, stop):
            asked = asyncio.ensure_future(b.locks.acquire(alone("x"), wait_s=20))
            await in_line(b)
            await stop.go()
            async with asyncio.timeout(5):
                await asked

    run(story())


def test_who_does_not_wait_asks_again_when_he_met_a_mere_probe(fresh_database_url, monkeypatch):
    monkeypatch.setattr(requests, "_PROBES", 1000)

    async def story():
        async with probed(fresh_database_url) as (b, stop):
            asked = asyncio.ensure_future(b.locks.acquire(alone("x")))

            async def refused_once():
                return asked.done() or any(each._again for each in b.locks._requests)

            await eventually(refused_once)
            await stop.go()
            await asked

    run(story())


@pytest.mark.usefixtures("no_poll")  # who asks again is told by the answer to that
def test_who_waits_is_told_at_once_that_his_member_was_ended(fresh_database_url):
    async def story():
        url = fresh_database_url
        async with node(url, "a") as a, node(url, "b") as b:
            await a.locks.acquire(alone("long"))
            asked = asyncio.ensure_future(b.locks.acquire(alone("long"), wait_s=None))
            await waiting(a, 1)
            assert await end(b, a)
            with pytest.raises(MemberEnded):
                async with asyncio.timeout(5):
                    await asked

    run(story())


def test_the_body_under_a_lock_ends_at_once_with_its_member(fresh_database_url):
    async def story():
        url = fresh_database_url
        async with node(url, "a") as a, node(url, "b") as b:
            inside = asyncio.Event()

            async def work():
                async with a.locks.holding(alone("body")):
                    inside.set()
                    await asyncio.Event().wait()

            working = asyncio.ensure_future(work())
            await inside.wait()
            assert await end(a, b)
            with pytest.raises(MemberEnded):
                async with asyncio.timeout(5):
                    await working

    run(story())


# The lock session


def test_a_release_of_an_old_lock_session_does_nothing_when_it_thaws(database_url):
    async def story():
        async with await raw(database_url) as old:
            member_id = await joined(old)
            reply = await batch(old, member_id, 1, asking(alone("kept")))
            grant = Grant(alone("kept").key, Mode.EXCLUSIVE, reply["acquired"]["tokens"][0])
            await old.execute(
                "update member set session_number = 2 where member_id = %s", [member_id]
            )
            with pytest.raises(psycopg.Error, match="was succeeded by session 2"):
                await batch(old, member_id, 1, Releasing([grant]), sync=False)
            cursor = await old.execute("select token from lock_grant where id = 'kept'")
            assert (await cursor.fetchone())["token"] == grant.token

    run(story())


def test_a_resume_ends_its_predecessor_and_takes_its_advisory_locks(database_url):
    async def story():
        async with await raw(database_url) as old, await raw(database_url) as new:
            member_id = await joined(old)
            wanted = (alone("alone"), together("together"))
            reply = await batch(old, member_id, 1, asking(*wanted))
            grants = [
                Grant(each.key, each.mode, token)
                for each, token in zip(wanted, reply["acquired"]["tokens"], strict=True)
            ]
            await new.execute(RESUME, resuming(member_id, 2, *grants))
            cursor = await new.execute(OWN_LOCKS, [new.info.backend_pid])
            assert (await cursor.fetchone())["n"] == 2
            with pytest.raises(psycopg.OperationalError):
                await old.execute("select 1")

    run(story())


def test_a_resume_vacates_what_its_member_does_not_know_that_it_leads(fresh_database_url):
    async def story():
        async with await raw(fresh_database_url) as old, await raw(fresh_database_url) as new:
            member_id = await joined(old)
            await new.execute(
                "insert into leader (name, member_id, term)"
                " select name, %s, 2 from unnest('{known,older,unknown}'::text[]) as name",
                [member_id],
            )
            known = [{"name": "known", "term": 2}, {"name": "older", "term": 1}]
            params = resuming(member_id, 2) | {"leaderships": Jsonb(known)}
            await new.execute(RESUME, params)
            cursor = await new.execute("select name from leader where member_id is not null")
            assert await cursor.fetchall() == [{"name": "known"}]

    run(story())


def test_who_was_ended_does_not_resume(fresh_database_url):
    async def story():
        url = fresh_database_url
        async with node(url, "a") as a, await raw(url) as old, await raw(url) as new:
            member_id = await joined(old)
            assert await end_member(a.db, member_id, renewal=None, by=a.member_id, reason="forced")
            with pytest.raises(psycopg.Error, match="was ended: forced"):
                await new.execute(RESUME, resuming(member_id, 2))

    run(story())


def test_the_advisory_lock_follows_an_adopted_grant_when_it_becomes_free(fresh_database_url):
    async def story():
        url = fresh_database_url
        async with node(url, "a") as a, node(url, "b") as b, await raw(url) as other:
            command, claim, key = await claimed(a, "followed")
            a.claims.vacate(claim)
            await other.execute("select pg_advisory_lock(%s)", [key.key.advisory])
            assert await eventually(lambda: b.claims.claim(command))  # the vacating is on its way
            followed = "select advisory_held from lock_grant where id = 'followed'"
            assert await b.rows(followed) == [{"advisory_held": False}]
            await other.execute("select pg_advisory_unlock(%s)", [key.key.advisory])

            async def follows():
                return (await b.rows(followed))[0]["advisory_held"]

            await eventually(follows)

    run(story())


def test_a_resume_whose_answer_is_lost_is_tried_under_another_number(losing, fresh_database_url):
    async def story():
        async with node(fresh_database_url, "a") as a:
            hold = await a.locks.acquire(alone("through all"))
            losing(RESUME)
            await cut_lock_session(a, a)
            async with a.membership.fencing.tx(Fence(hold.grants)):
                pass

    run(story())


@pytest.mark.usefixtures("no_poll")
def test_who_waits_for_what_a_resume_gives_back_is_rung(fresh_database_url):
    async def story():
        url = fresh_database_url
        async with node(url, "a") as a, node(url, "b") as b:
            hold = await a.locks.acquire(alone("lost release"))
            asked = asyncio.ensure_future(b.locks.acquire(alone("lost release"), wait_s=20))
            await in_line(b)
            a.session.submit = lambda _part: None  # what a crash does to an asynchronous commit
            a.locks.release(hold)
            del a.session.submit
            await cut_lock_session(b, a)
            async with asyncio.timeout(5):
                await asked

    run(story())


def test_a_ticket_whose_answer_was_lost_is_had_once(losing, fresh_database_url):
    async def story():
        url = fresh_database_url
        async with node(url, "a") as a, node(url, "b") as b:
            hold = await a.locks.acquire(alone("awaited"))
            losing(BATCH, member=b.member_id, waits="{True}")
            asked = asyncio.ensure_future(b.locks.acquire(alone("awaited"), wait_s=20))
            await in_line(b)
            assert b.session.measures.resumes == 1
            assert len(await a.rows(TICKETS)) == 1
            a.locks.release(hold)
            async with asyncio.timeout(5):
                await asked

    run(story())


def test_a_claim_whose_answer_was_lost_is_had_once(losing, database_url):
    async def story():
        async with node(database_url, "a") as a:
            command = await open_command(a)
            losing(BATCH, sync=True)
            claim = await a.claims.claim(command)
            assert claim is not None
            assert claim.attempt == 2
            assert a.claims.commands == [command]

    run(story())


def test_who_gets_no_answer_gives_the_connection_up_before_its_lease_is_over(fresh_database_url):
    lease = Lease(ttl_s=2.0, margin_s=0.2, heartbeat_s=0.1)

    async def story():
        url = fresh_database_url
        async with node(url, "a", lease=lease) as a, await raw(url) as other:
            first = a.session._connection
            await other.execute("begin")
            await other.execute("select from member where member_id = %s for update", [a.member_id])
            await eventually(lambda: truth(a.session._connection is not first), 1.7)
            await other.execute("rollback")

    run(story())


def test_the_server_ends_the_lock_session_of_a_frozen_process(fresh_database_url):
    async def story():
        async with node(fresh_database_url, "a") as a:

            async def frozen(_batch):
                await asyncio.Event().wait()

            a.session._carry = frozen

            async def ended():
                return not await a.rows(
                    "select 1 from pg_stat_activity join member on pid = backend_pid"
                    " where backend_start = backend_started_at"
                )

            await eventually(ended, 5)

    run(story())


# Commits that no standby has


@asynccontextmanager
async def no_standby(postgres):
    """Let all commits wait for a standby that is not there; yield a connection that waits not."""
    if postgres.embedded is None:
        pytest.skip("it changes the settings of the whole server")
    connect = psycopg.AsyncConnection.connect
    async with (
        await connect(postgres.admin_url, autocommit=True) as admin,
        await connect(
            postgres.admin_url, autocommit=True, application_name="first to wait"
        ) as other,
    ):
        await admin.execute("alter system set synchronous_standby_names = 'nobody'")
        await admin.execute("select pg_reload_conf()")
        try:

            async def commits_wait():
                wait = asyncio.ensure_future(
                    other.execute("select pg_logical_emit_message(true, 'wait', '')")
                )
                await asyncio.wait([wait], timeout=0.1)
                return None if wait.done() else wait

            first = await eventually(commits_wait)
            yield admin
        finally:
            await admin.execute("alter system reset synchronous_standby_names")
            await admin.execute("select pg_reload_conf()")
        await first


async def cut_short(admin, name: str) -> int:
    """Cancel the commit that waits in a session of this name; return whose it was."""

    async def in_doubt():
        return await (await admin.execute(IN_DOUBT, [name])).fetchone()

    (pid,) = await eventually(in_doubt, 5)
    await admin.execute("select pg_cancel_backend(%s)", [pid])
    return pid


def test_no_renewal_is_believed_that_no_standby_has(postgres, fresh_database_url):
    async def story():
        async with node(fresh_database_url, "a") as a:
            async with no_standby(postgres):
                await eventually(lambda: truth(not a.session.trusted), 5)
            await eventually(lambda: truth(a.session.trusted))

    run(story())


def test_a_batch_whose_commit_was_cancelled_is_not_believed(postgres, fresh_database_url):
    async def story():
        async with node(fresh_database_url, "a", lease=RARE) as a:
            async with no_standby(postgres) as admin:
                asked = asyncio.ensure_future(a.locks.acquire(alone("doubtful"), wait_s=30))
                name = "engine_pg lock session a"
                cancelled = await cut_short(admin, name)

                async def goes_on():
                    found = await (await admin.execute(IN_DOUBT, [name])).fetchone()
                    return asked.done() or (found and found[0] != cancelled)

                await eventually(goes_on)
                assert not asked.done()  # its session was ended, and the next one waits in turn
            hold = await asked
            rows = await a.rows("select token from lock_grant")
            assert [row["token"] for row in rows] == [hold.grants[0].token]

    run(story())


def test_a_write_whose_commit_was_cancelled_is_not_believed(postgres, fresh_database_url):
    async def story():
        async with Database(fresh_database_url, name="doubtful write") as db:
            await db.statement("create table doubtful (x int)")
            async with no_standby(postgres) as admin:
                writing = asyncio.ensure_future(db.statement("insert into doubtful values (1)"))
                await cut_short(admin, "doubtful write")
                with pytest.raises(OutcomeUnknown):
                    await writing

    run(story())


def test_a_commit_goes_on_though_its_caller_is_cancelled(postgres, fresh_database_url):
    async def story():
        async with Database(fresh_database_url, name="cancelled write") as db:
            await db.statement("create table doubtful (x int)")
            async with no_standby(postgres) as admin:
                writing = asyncio.ensure_future(db.statement("insert into doubtful values (1)"))

                async def in_doubt():
                    return await (await admin.execute(IN_DOUBT, ["cancelled write"])).fetchone()

                await eventually(in_doubt, 5)
                writing.cancel()
                await asyncio.wait([writing], timeout=0.5)
                assert await in_doubt()
            await asyncio.wait([writing], timeout=10)
            assert writing.cancelled()

    run(story())


# Clocks


@pytest.mark.parametrize("jump_s", [3600, -3600])
def test_the_lease_is_counted_on_a_clock_that_does_not_jump(
    jump_s, fresh_database_url, monkeypatch
):
    async def story():
        async with node(fresh_database_url, "a") as a:
            before = (await a.rows(RENEWAL, m=a.member_id))[0]["renewal"]
            monkeypatch.setattr(
                "time.time", lambda: time.clock_gettime(time.CLOCK_REALTIME) + jump_s
            )
            assert a.session.trusted

            async def renewed_often():
                assert a.session.trusted
                return (await a.rows(RENEWAL, m=a.member_id))[0]["renewal"] > before + 12

            await eventually(renewed_often)

    run(story())


def test_a_member_whose_machine_slept_does_not_trust_itself(fresh_database_url, monkeypatch):
    async def story():
        async with node(fresh_database_url, "a") as a:
            assert a.session.trusted
            awake = time.clock_gettime
            monkeypatch.setattr(
                "time.clock_gettime",
                lambda clock: awake(clock) + (3600 if clock == time.CLOCK_BOOTTIME else 0),
            )
            assert not a.session.trusted
            await eventually(lambda: truth(a.session.trusted))

    run(story())


def test_trust_is_counted_from_the_sending_of_a_renewal(fresh_database_url):
    async def story():
        async with node(fresh_database_url, "a") as a:
            whole, sent = a.session._ask, []

            async def slow(query, params, *how):
                before = a.session.clock()
                row = await whole(query, params, *how)
                await asyncio.sleep(0.05)
                if query is RENEW:
                    sent.append(before)
                return row

            a.session._ask = slow
            await eventually(lambda: truth(len(sent) > 2))
            assert a.session.trusted_until <= sent[-1] + LEASE.ttl_s - LEASE.margin_s

    run(story())


# Endings


def test_nothing_of_an_ended_member_stands_in_the_way(fresh_database_url):
    async def story():
        url = fresh_database_url
        async with node(url, "a") as a, await raw(url) as connection:
            member_id = await joined(connection)
            await batch(connection, member_id, 1, asking(alone("left")))
            await a.db.statement(
                "insert into lock_ticket (ticket, kind, id, mode, member_id)"
                " values (1, 'test', 'left', 'shared', %(m)s)",
                {"m": member_id},
            )
            await a.db.statement(
                "insert into leader (name, member_id, term) values ('left', %(m)s, 1)",
                {"m": member_id},
            )
            assert len(await a.rows(LEFT, m=member_id)) == 3
            assert await end_member(a.db, member_id, renewal=None, by=a.member_id, reason="forced")
            assert await a.rows(LEFT, m=member_id) == []

    run(story())


def test_an_ending_on_an_outdated_counter_costs_the_member_nothing(fresh_database_url):
    async def story():
        url = fresh_database_url
        async with node(url, "a", lease=RARE) as a, node(url, "b", lease=RARE) as b:
            await a.locks.acquire(alone("renews"))
            assert not await end(a, b, renewal=0)
            await a.locks.acquire(alone(new_id()))
            assert a.session.measures.resumes == 0

    run(story())


def test_who_renews_while_it_is_being_ended_lives_on(fresh_database_url):
    async def story():
        url = fresh_database_url
        async with (
            node(url, "a", lease=RARE) as a,
            node(url, "b", lease=RARE) as b,
            await raw(url) as other,
        ):
            await other.execute(SHUT, [gate_of(a.member_id)])
            renewal = (await b.rows(RENEWAL, m=a.member_id))[0]["renewal"]
            ending = asyncio.ensure_future(end(a, b, renewal=renewal))
            await eventually(lambda: b.rows(AT_THE_GATE, call="%member_end(%"))
            await a.locks.acquire(alone("still here"))
            await other.execute(OPEN, [gate_of(a.member_id)])
            assert not await ending
            await a.locks.acquire(alone("and still"))

    run(story())
