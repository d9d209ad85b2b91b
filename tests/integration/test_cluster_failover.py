"""Standbys, cut-off primaries and commits that nobody confirms: what a member believes then."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import psycopg
import pytest
from integration.nodes import TestNode, eventually, node, run
from integration.test_cluster_resume import (
    alone,
    killed_and_failed_over,
    resumed,
    write_under,
)
from psycopg.rows import dict_row

from engine_pg.clock import boottime
from engine_pg.cluster.feed.feed import Feed
from engine_pg.cluster.members import end_member
from engine_pg.cluster.membership import Lease, Membership
from engine_pg.cluster.ops import Identity
from engine_pg.commands import store
from engine_pg.commands.rows import Submission
from engine_pg.db.database import Database, connect
from engine_pg.db.faults import translated
from engine_pg.db.listener import Doorbells
from engine_pg.errors import (
    DatabaseAway,
    EngineError,
    LeaseLost,
    MemberEnded,
    OutcomeUnknown,
    Unavailable,
)
from engine_pg.ids import new_id

IN_DOUBT = """
select pid, query_start from pg_stat_activity
 where wait_event = 'SyncRep' and datname = %s and query ~* %s
"""
FENCED, BATCH, SUBMITTED = "^commit", "cluster_batch|member_renew", "^commit|quiet"
BARRIER = "with stand as"
WORKED = "select token from work"


async def in_doubt(replicated, query: str, but: object = ()) -> list[tuple[int, object]]:
    """Return the backends whose commits wait for the standby, with when these began."""
    found = await asyncio.to_thread(
        replicated.pair.primary.ask, IN_DOUBT, replicated.database, query
    )
    return [] if found == but else found


async def cancel(replicated, hanging: list[tuple[int, object]]) -> None:
    for pid, _ in hanging:
        await asyncio.to_thread(replicated.pair.primary.ask, "select pg_cancel_backend(%s)", pid)


@pytest.mark.parametrize("attrs", [None, "read-write", "any"])
def test_nobody_joins_on_a_standby(attrs, replicated):
    async def story():
        url = replicated.url_of(replicated.pair.standby.link, attrs=attrs)
        async with Database(url, away_s=0.3) as db:
            one = Membership(db, Identity(new_id(), "a"), bells=Doorbells(url))
            with pytest.raises(DatabaseAway, match="read-only"):
                await one.join()
            with pytest.raises(DatabaseAway):
                await db.statement("select 1")

    run(story())


def test_a_standby_that_is_asked_all_the_same_proves_nothing(replicated):
    async def story():
        url = replicated.url_of(replicated.pair.standby.link, attrs="any")
        async with await psycopg.AsyncConnection.connect(url, row_factory=dict_row) as standby:
            with pytest.raises(psycopg.Error) as refused:
                await standby.execute("select cluster_epoch_current()")
        assert refused.value.sqlstate == "EP001"
        assert isinstance(translated(refused.value), DatabaseAway)

    run(story())


def test_the_newest_timeline_wins_and_ends_what_is_on_older_ones(replicated):
    async def story():
        old = replicated.pair.primary
        async with Database(replicated.url) as db:
            before = await connect(replicated.url, name="before")
            replicated.pair.primary.feed.cut()
            await asyncio.to_thread(replicated.pair.promote)
            assert old.ask("select pg_is_in_recovery()") == [(False,)], "both believe in themselves"
            for _ in range(3):
                async with await connect(replicated.url, name="after") as after:
                    assert after.timeline == before.timeline + 1
            with pytest.raises(psycopg.OperationalError):
                await before.execute("select 1")
            await before.close()
            async with db.write() as tx:
                assert tx.connection.timeline == after.timeline
            replicated.pair.primary.link.cut()
            with pytest.raises(DatabaseAway, match="old primary"):
                await connect(replicated.url, name="the old one is left")

    run(story())


def test_a_host_that_hangs_costs_a_moment(replicated):
    async def story():
        pair = replicated.pair
        url = replicated.url_of(pair.standby.link, pair.primary.link)
        pair.standby.link.freeze()
        began = boottime()
        async with await connect(url, name="one hangs"):
            assert boottime() - began < 1.0

    run(story())


def test_a_standby_is_found_when_it_is_promoted_while_the_primary_hangs(replicated):
    async def story():
        pair = replicated.pair
        pair.primary.link.freeze()
        began = boottime()
        async with asyncio.TaskGroup() as group:
            connecting = group.create_task(connect(replicated.url, name="waits"))
            await asyncio.to_thread(pair.promote)
        assert boottime() - began < 2.0, "it did not wait for the one that hangs"
        await connecting.result().close()

    run(story())


@pytest.mark.parametrize("promoted", [False, True])
def test_a_fenced_commit_that_was_cancelled_is_unknown_until_a_standby_has_it(promoted, replicated):
    async def story():
        async with node(replicated.url, "a") as a:
            await a.db.statement("create table work (token bigint)")
            hold = await a.locks.acquire(alone("kept"))
            replicated.pair.primary.feed.freeze()
            async with asyncio.TaskGroup() as group:
                writing = group.create_task(outcome(write_under(a, hold)))
                hanging = await eventually(lambda: in_doubt(replicated, FENCED))
                await cancel(replicated, hanging)
                # It is visible here already, and on no standby: whoever looks waits for one.
                await eventually(lambda: in_doubt(replicated, FENCED, but=hanging))
                assert not writing.done()
                if promoted:
                    await asyncio.to_thread(replicated.pair.promote)
                else:
                    replicated.pair.primary.feed.heal()
            assert isinstance(writing.result(), OutcomeUnknown)
            found = await a.rows(WORKED)
            assert found == ([] if promoted else [{"token": hold.grants[0].token}])
            await eventually(lambda: trusts(a))
            await write_under(a, hold)

    run(story())


async def outcome(action) -> BaseException | None:
    try:
        await action
    except EngineError as error:
        return error
    return None


async def trusts(one: TestNode) -> bool:
    return one.session.trusted


@pytest.mark.parametrize("how", ["alone", "with others"])
def test_a_submission_that_is_repeated_counts_only_once_a_standby_has_it(replicated, how):
    submission = Submission(name="test", subject_id=new_id())

    async def submit(db: Database) -> None:
        if how == "with others":
            row = store.written(submission, description="a test", subject_kind="vm")
            await store.submit_many(db, [row])
            return
        async with db.write() as tx:
            await store.submit(
                tx, store.written(submission, description="a test", subject_kind="vm")
            )

    async def story():
        async with Database(replicated.url) as db:
            replicated.pair.primary.feed.freeze()
            async with asyncio.TaskGroup() as group:
                first = group.create_task(outcome(submit(db)))
                hanging = await eventually(lambda: in_doubt(replicated, SUBMITTED))
                await cancel(replicated, hanging)
                assert isinstance(await first, OutcomeUnknown)
                again = group.create_task(outcome(submit(db)))
                await eventually(lambda: in_doubt(replicated, SUBMITTED, but=hanging))
                assert not again.done()
                replicated.pair.primary.feed.heal()
            assert again.result() is None

    run(story())


def test_a_batch_that_was_cancelled_ends_its_session_and_is_sent_again(replicated):
    async def story():
        async with node(replicated.url, "a") as a:
            replicated.pair.primary.feed.freeze()
            asking = asyncio.ensure_future(a.locks.acquire(alone("asked for")))
            await cancel(replicated, await eventually(lambda: in_doubt(replicated, BATCH)))
            await eventually(lambda: in_doubt(replicated, "member_resume"))
            assert not asking.done()
            replicated.pair.primary.feed.heal()
            hold = await asking
            assert a.session.measures.resumes >= 1
            rows = await a.rows("select token from lock_grant")
            assert rows == [{"token": hold.grants[0].token}], "none was left by the cancelled one"

    run(story())


def test_a_cancelled_coroutine_cancels_no_commit(replicated):
    async def story():
        async with node(replicated.url, "a") as a:
            await a.db.statement("create table work (token bigint)")
            hold = await a.locks.acquire(alone("kept"))
            replicated.pair.primary.feed.freeze()
            writing = asyncio.ensure_future(write_under(a, hold))
            hanging = await eventually(lambda: in_doubt(replicated, FENCED))
            writing.cancel()
            for _ in range(10):
                await asyncio.sleep(0.02)
                assert await in_doubt(replicated, FENCED) == hanging, "it waits for its standby"
            replicated.pair.primary.feed.heal()
            with pytest.raises(asyncio.CancelledError):
                await writing
            assert await a.rows(WORKED) == [{"token": hold.grants[0].token}]

    run(story())


def test_nobody_is_ended_when_all_commits_stall_for_longer_than_a_ttl(replicated):
    slow = Lease(ttl_s=2.0, margin_s=0.2, heartbeat_s=0.2)
    feed = replicated.pair.primary.feed

    async def stalls(*both: TestNode) -> None:
        feed.freeze()
        stalled = boottime()

        async def long_since():
            return boottime() - stalled > slow.ttl_s * 1.5

        await eventually(long_since)
        assert not any(one.session.trusted for one in both)

    async def story(link, url):
        async with (
            node(replicated.url, "a", lease=slow) as a,
            node(url, "b", lease=slow) as b,
        ):
            await a.db.statement("create table work (token bigint)")
            holds = {one: await one.locks.acquire(alone(str(one.member_id))) for one in (a, b)}
            await asyncio.sleep(slow.ttl_s * 1.2)  # both have been well: they could end somebody
            link.freeze()  # not even what b had sent comes through before a is well again
            await stalls(a, b)
            with pytest.raises(LeaseLost):
                await write_under(a, holds[a])
            feed.heal()
            await a.session.until_trusted()  # and b is not heard of yet
            await asyncio.sleep(slow.ttl_s * 0.3)
            link.heal()
            for one, hold in holds.items():
                await one.session.until_trusted()
                await write_under(one, hold)
            rows = await a.rows("select count(*) as n from member where state = 'live'")
            assert rows == [{"n": 2}]

    with replicated.private_link() as (link, url):
        run(story(link, url))


@pytest.mark.parametrize("server", ["answers", "is silent"])
def test_while_commits_hang_one_barrier_waits_on_and_only_a_silent_server_is_left(
    server, replicated
):
    bound_s = 0.5

    async def story(link, url):
        feed = replicated.pair.primary.feed
        since: dict[object, float] = {}

        async def hangs_for(bounds: int) -> bool:
            hanging = await in_doubt(replicated, BARRIER)
            for each in hanging:
                since.setdefault(each, boottime())
            return any(boottime() - since[each] > bounds * bound_s for each in hanging)

        async with Database(url, bound_s=bound_s) as db:
            read = Feed(db, Doorbells(url)).read
            async with Feed(db, Doorbells(url)).copy() as (_, cursor):
                pass
            feed.freeze()
            reading = asyncio.ensure_future(read(cursor, sync=True))
            await eventually(lambda: hangs_for(4))
            assert len(since) == 1
            if server == "answers":
                assert not reading.done()
                feed.heal()
                assert (await reading).seen.covers(cursor)
                assert len(since) == 1
            else:
                link.freeze()
                with pytest.raises(DatabaseAway):
                    await reading
                link.heal()
                feed.heal()
                assert (await read(cursor, sync=True)).seen.covers(cursor)

    with replicated.private_link() as (link, url):
        run(story(link, url))


@pytest.mark.parametrize("goes_on", ["the standby comes back", "a failover"])
def test_an_ending_that_hangs_in_its_commit_is_one_only_where_it_was_replicated(
    goes_on, replicated
):
    rare = Lease(ttl_s=20.0, margin_s=0.5, heartbeat_s=5.0)  # no renewal is under way then

    async def story(link, url):
        pair = replicated.pair
        async with (
            node(url, "a", lease=rare) as a,
            node(replicated.url, "b", lease=rare) as b,
        ):
            await b.db.statement("create table work (token bigint)")
            await b.locks.acquire(alone("renews b"))
            hold = await a.locks.acquire(alone("kept"))
            link.freeze()  # what a sends comes later than the ending, and waits for its row
            pair.primary.feed.freeze()
            ending = asyncio.ensure_future(
                end_member(b.db, a.member_id, renewal=None, by=b.member_id, reason="forced")
            )
            await eventually(lambda: in_doubt(replicated, FENCED))
            link.heal()
            assert not ending.done()
            if goes_on == "a failover":
                await asyncio.to_thread(killed_and_failed_over, replicated, a)
                with pytest.raises(OutcomeUnknown):
                    await ending
                await eventually(lambda: resumed(a, 0))
                await write_under(a, hold)
                assert a.session.ended is None
            else:
                pair.primary.feed.heal()
                assert await ending
                await eventually(lambda: ended(b, a))
                with pytest.raises(MemberEnded):
                    await write_under(a, hold)
                await b.locks.acquire(alone("kept"), wait_s=5)

    with replicated.private_link() as (link, _):
        url = replicated.url_of(link, replicated.pair.standby.link)
        run(story(link, url))


class Taker:
    """A member that takes one key after the other; `tokens` are those it was told that it has."""

    def __init__(self, one: TestNode) -> None:
        self.one = one
        self.tokens: list[int] = []

    async def take(self) -> None:
        while True:
            with suppress(Unavailable, LeaseLost):  # nobody answered in time: nothing is held
                hold = await self.one.locks.acquire(alone(str(new_id())))
                self.tokens.append(hold.grants[0].token)
            await asyncio.sleep(0.01)

    async def goes_on(self) -> None:
        count = len(self.tokens) + 10
        await eventually(lambda: self._has(count))

    async def _has(self, count: int) -> bool:
        return len(self.tokens) >= count


def test_an_old_primary_that_was_cut_off_renews_and_grants_nothing(replicated):
    old = replicated.pair.primary

    async def cut_off(a: Taker, behind: Taker) -> None:
        """Both are on the old primary, and only `a` knows of the new one."""
        await a.goes_on()
        await behind.goes_on()
        old.feed.cut()
        await eventually(lambda: past(behind.one))
        trusted_until, acknowledged = behind.one.session.trusted_until, len(behind.tokens)
        told = {*a.tokens, *behind.tokens}
        await asyncio.to_thread(replicated.pair.promote)
        await eventually(lambda: resumed(a.one, 0))
        there = {row["token"] for row in await a.one.rows("select token from lock_grant")}
        assert there >= told, "what the old primary acknowledged, the new one has"
        await a.goes_on()
        # What hangs on the old primary is cancelled: the server calls it done, and is alone.
        for pid, _ in old.ask(IN_DOUBT, replicated.database, f"{BATCH}|member_resume"):
            old.ask("select pg_cancel_backend(%s)", pid)
        await eventually(lambda: ended(a.one, behind.one))
        assert len(behind.tokens) == acknowledged, "it granted nothing"
        assert behind.one.session.trusted_until == trusted_until, "it renewed nothing"
        old.link.cut()

    async def story():
        async with (
            node(replicated.url, "a") as a,
            node(replicated.url_of(old.link), "behind") as behind,
            asyncio.TaskGroup() as group,
        ):
            await a.db.statement("create table work (token bigint)")
            kept = await a.locks.acquire(alone("kept"))
            takers = Taker(a), Taker(behind)
            taking = [group.create_task(each.take()) for each in takers]
            await cut_off(*takers)
            await write_under(a, kept)
            for each in taking:
                each.cancel()

    run(story(), 60)


async def past(one: TestNode) -> bool:
    return not one.session.trusted


async def ended(one: TestNode, other: TestNode) -> bool:
    rows = await one.rows("select state from member where member_id = %(m)s", m=other.member_id)
    return rows[0]["state"] == "ended"
