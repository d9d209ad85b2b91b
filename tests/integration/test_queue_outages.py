"""Procrastinate's worker, ours, through all that the stock one does not survive.

The stock one was seen to lose LISTEN for good at a restart, to stop with success, to leave a
finished job `doing` for ever or run it twice, to hang on a half-open connection, and to stop
beating as soon as it drains.
"""

from __future__ import annotations

import asyncio
import os

import pytest
from integration.nodes import eventually, run
from integration.queueing import linked, queue

from engine_pg.clock import boottime
from engine_pg.db import queue as served
from engine_pg.db.listener import QUEUE

OUTAGE_S = float(os.environ.get("ENGINE_QUEUE_OUTAGE_S", "6"))
BACKENDS = """
select pg_terminate_backend(pid) from pg_stat_activity
 where datname = current_database() and application_name like 'engine_pg %%'
"""
BEAT = "select last_heartbeat from procrastinate_workers where id = %(worker)s"


@pytest.fixture
def rung_only(monkeypatch):
    """Only a ring wakes the worker."""
    monkeypatch.setattr(served, "_POLL_S", 1000.0)


def test_jobs_run_once_and_leave_the_queue(database_url):
    async def story():
        async with queue(database_url) as one:
            ids = await one.defer(50)
            await one.none_left()
            assert sorted(one.ended) == sorted(ids)

    run(story())


@pytest.mark.usefixtures("rung_only")
def test_a_ring_alone_wakes_the_worker(database_url):
    async def story():
        async with queue(database_url) as one:
            await one.has_begun(*await one.defer(), bound_s=5)

    run(story())


@pytest.mark.usefixtures("rung_only")
def test_lost_connections_are_replaced_and_the_queue_is_heard_again(database_url):
    async def story():
        async with queue(database_url) as one:
            running = await one.defer(held=True)
            await one.has_begun(*running)
            await one.ask(BACKENDS)
            later = await one.defer()
            await one.has_begun(*later)  # the listener looks as soon as it hears again
            one.release(*running)
            await one.none_left()
            last = await one.defer()  # it really listens
            await one.has_begun(*last, bound_s=5)
            assert sorted(one.ended) == sorted(running + later + last)
            assert len(one.workers) == 1

    run(story())


def test_a_long_outage_is_outlived_and_work_begins_within_a_second_after_it(database_url):
    async def story():
        with linked(database_url) as (link, url):
            async with queue(url, database_url) as one:
                running = await one.defer(2, held=True)
                await one.has_begun(*running)
                link.cut()
                waiting = await one.defer(20)
                one.release(running[0])  # it ends while nobody can be told
                await asyncio.sleep(OUTAGE_S)  # what is tested is how long it is
                assert not set(waiting) & set(one.begun)
                healed_at = boottime()
                link.heal()
                await one.has_begun(*waiting)
                assert max(one.began_at[each] for each in waiting) - healed_at < 1.0
                one.release(running[1])
                await one.none_left()
                assert sorted(one.ended) == sorted(running + waiting)
                assert len(one.workers) == 1

    run(story(), OUTAGE_S + 40)


@pytest.mark.parametrize("how", ["restart", "failover"])
def test_a_server_that_crashes_is_followed_to_where_it_goes_on(replicated, how):
    def crash():
        if how == "restart":
            replicated.pair.primary.embedded.stop("immediate")
            replicated.pair.primary.embedded.start()
        else:
            replicated.pair.primary.kill()
            replicated.pair.promote()

    async def story():
        async with queue(replicated.url) as one:
            held = await one.defer(held=True)
            await one.has_begun(*held)
            await asyncio.to_thread(crash)
            one.release(*held)
            await one.close()
            await one.connect()
            later = await one.defer()
            await one.has_begun(*later)
            await one.none_left()
            assert one.begun == held + later

    run(story(), 60)


def test_a_connection_that_was_forgotten_on_the_way_is_given_up(database_url):
    async def story():
        with linked(database_url) as (link, url):
            async with queue(url, database_url) as one:
                link.swallow()  # half-open: nothing comes any more, and nobody says so
                await one.has_begun(*await one.defer(), bound_s=15)
                assert len(one.workers) == 1

    run(story(), 60)


def test_a_worker_stops_though_its_server_is_silent(database_url):
    async def story():
        with linked(database_url) as (link, url):
            async with queue(url, database_url) as one:
                interrupted = await one.defer(held=True)
                await one.has_begun(*interrupted)
                link.freeze()
                one.release(*interrupted)
                assert one.serving is not None
                one.serving.cancel()
                began = boottime()
                await asyncio.wait([one.serving], timeout=20)
                assert one.serving.cancelled()
                assert boottime() - began < 12
                link.heal()

    run(story(), 60)


def test_a_worker_that_is_stopped_during_an_outage_stays_stopped(database_url):
    async def story():
        with linked(database_url) as (link, url):
            async with queue(url, database_url) as one:
                link.cut()
                assert one.serving is not None
                one.serving.cancel()
                await asyncio.wait([one.serving], timeout=15)
                assert one.serving.cancelled()

    run(story())


def test_a_fetch_whose_answer_was_lost_is_repeated(database_url):
    async def story():
        with linked(database_url) as (link, url):
            async with queue(url, database_url) as one:
                link.freeze("back")
                ids = await one.defer(3)

                async def given():
                    return await one.jobs("doing")  # some of them: it may have looked early

                await eventually(given)  # committed: the jobs are this worker's, who does not know
                assert not one.begun
                link.reset()
                link.heal()
                await one.none_left()
                assert sorted(one.ended) == sorted(ids)
                assert len(one.workers) == 1

    run(story())


def test_an_end_whose_answer_was_lost_is_repeated_and_the_job_is_not(database_url):
    async def story():
        with linked(database_url) as (link, url):
            async with queue(url, database_url) as one:
                ids = await one.defer(held=True)
                await one.has_begun(*ids)
                link.freeze("back")
                one.release(*ids)
                await one.none_left()
                link.reset()
                link.heal()
                later = await one.defer()
                await one.has_begun(*later)
                assert one.begun == ids + later

    run(story())


def test_a_job_that_ends_while_its_server_is_away_runs_once(database_url):
    async def story():
        with linked(database_url) as (link, url):
            async with queue(url, database_url) as one:
                ids = await one.defer(held=True)
                await one.has_begun(*ids)
                link.cut()
                one.release(*ids)

                async def ended():
                    return one.ended

                await eventually(ended)
                link.heal()
                await one.none_left()
                assert one.begun == ids

    run(story())


def test_a_worker_whose_row_is_gone_begins_anew(database_url):
    async def story():
        async with queue(database_url) as one:
            await one.ask("delete from procrastinate_workers")
            ids = await one.defer()
            await one.has_begun(*ids)
            await one.none_left()
            assert len(one.workers) == 2
            assert one.begun == ids

    run(story())


def test_a_worker_beats_until_its_last_job_has_ended(database_url, monkeypatch):
    monkeypatch.setattr(served, "_HEARTBEAT_S", 0.1)

    async def story():
        async with queue(database_url) as one:
            ids = await one.defer(held=True)
            await one.has_begun(*ids)
            assert one.serving is not None
            one.serving.cancel()
            beats: set[object] = set()

            async def often():
                rows = await one.ask(BEAT, worker=one.workers[0])
                beats.update(row["last_heartbeat"] for row in rows)
                return len(beats) > 5

            await eventually(often, 4)
            one.release(*ids)
            await asyncio.wait([one.serving])
            assert one.ended == ids
            assert not await one.jobs()
            assert not await one.ask(BEAT, worker=one.workers[0])

    run(story())


def test_an_interrupted_job_goes_back_and_is_not_lost(database_url, monkeypatch):
    monkeypatch.setattr(served, "_GRACE_S", 0.1)

    async def story():
        async with queue(database_url) as one:
            ids = await one.defer(held=True)
            await one.has_begun(*ids)
            assert one.serving is not None
            one.serving.cancel()
            await asyncio.wait([one.serving])
            rows = await one.jobs()
            assert [(row["status"], row["attempts"]) for row in rows] == [("todo", 1)]
            assert rows[0]["worker_id"] is None

    run(story())


def test_a_job_that_fails_does_not_come_again_and_hurts_nobody(database_url):
    async def story():
        async with queue(database_url) as one:
            run_command = one.run_command

            async def failing(command_id):
                await run_command(command_id)
                if len(one.begun) == 1:
                    raise ValueError("a defect")

            one.run_command = failing
            one.serving.cancel()
            await asyncio.wait([one.serving])
            one.serving = asyncio.ensure_future(one.serve())
            first = await one.defer()
            await one.has_begun(*first)
            second = await one.defer()
            await one.has_begun(*second)
            await one.none_left()
            assert one.begun == first + second

    run(story())


def test_who_accepts_nothing_takes_nothing(database_url):
    async def story():
        async with queue(database_url) as one:
            running = await one.defer(held=True)
            await one.has_begun(*running)
            one.accepting = False
            await one.defer(3)
            one.bells.ring(QUEUE)
            one.release(*running)

            async def only_theirs():
                return [row["status"] for row in await one.jobs()] == ["todo"] * 3

            await eventually(only_theirs)
            assert one.begun == running
            one.accepting = True
            await one.none_left()

    run(story())
