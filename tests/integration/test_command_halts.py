"""Commands that are cancelled, run out of time, are given up, or are submitted anew."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest
from integration.engines import engine
from integration.nodes import eventually, run
from integration.trials import Trial, refusing

from engine_pg.cluster.locks import LockKey, Mode, Wanted
from engine_pg.commands.rows import Submission
from engine_pg.commands.runner import LIMIT
from engine_pg.commands.store import REQUEUE
from engine_pg.errors import Conflict, NotFound
from engine_pg.ids import new_id

EVENTS = "select code, severity, description from event_inbox where command_id = %(id)s"
STRAND = """
with jobless as (delete from procrastinate_jobs)
update command set deaths = %(deaths)s, submitted_at = submitted_at - interval '1 h',
                   not_before = clock_timestamp() - interval '1 s'
"""
DIE = "update command set deaths = %(deaths)s where command_id = %(id)s"


async def ask_cancel(one, command_id):
    async with one.node.db.write() as tx:
        return await one.commands.desk.cancel(tx, command_id, by="operator")


async def retry(one, command_id):
    async with one.node.db.write() as tx:
        return await one.commands.desk.retry(tx, command_id, by="operator")


@asynccontextmanager
async def running(one, submission):
    """Run a command beside the test."""
    job = asyncio.ensure_future(one.runner.run(submission.command_id))
    try:
        yield job
    finally:
        job.cancel()
        with suppress(asyncio.CancelledError):
            await job


async def final(one, submission):
    async def view():
        found = await one.view(submission.command_id)
        return found if found.final else None

    return await eventually(view)


def test_a_command_that_nobody_has_begun_is_cancelled_at_once(database_url):
    async def story():
        trial = Trial()
        async with engine(database_url, "a", more=trial.definition("t", trial.write("one"))) as a:
            watching = asyncio.ensure_future(a.commands.run())
            submission = await a.submit("t")
            waiting = asyncio.ensure_future(
                a.commands.settled(submission.command_id, until="final", bound_s=20)
            )
            view = await ask_cancel(a, submission.command_id)
            assert (view.state, view.error) == (
                "cancelled",
                "cancelled by operator before it began",
            )
            assert (await waiting).state == "cancelled", "who waits for it is told"
            await a.runner.run(submission.command_id)
            assert trial.happened == []
            rows = await a.node.rows(EVENTS, id=submission.command_id)
            assert [row["code"] for row in rows] == [9722]
            again = await ask_cancel(a, submission.command_id)
            assert again.ended_at == view.ended_at
            watching.cancel()

    run(story())


def test_a_running_command_is_cancelled_from_another_node_within_a_second(database_url):
    async def story():
        trial = Trial()
        trial.shut("two prepared")
        steps = (trial.write("one"), trial.host("host"), trial.write("two"))
        more = trial.definition("t", *steps)
        async with (
            engine(database_url, "a", more=more) as a,
            engine(database_url, "b", more=more) as b,
        ):
            submission = await a.submit("t")
            async with running(a, submission):
                await trial.reached("two prepared")
                asked = asyncio.get_running_loop().time()
                assert (await ask_cancel(b, submission.command_id)).state == "running"
                view = await final(b, submission)
                took_s = asyncio.get_running_loop().time() - asked
            assert view.state == "cancelled"
            assert (view.error_kind, view.error) == ("Cancelled", "cancelled by operator")
            assert trial.happened[-2:] == ["host undone", "one undone"]
            assert "two" not in trial.happened
            assert [step.state for step in view.steps] == ["compensated", "compensated", "failed"]
            assert took_s < 1.0

    run(story())


def test_a_cancelled_command_waits_for_no_lock(database_url):
    async def story():
        trial, key = Trial(), LockKey("vm", str(new_id()))
        wanted = Wanted(key, Mode.EXCLUSIVE)
        more = trial.definition("t", trial.write("one"), locks=lambda _: [wanted], lock_wait_s=30.0)
        async with engine(database_url, "a", more=more) as a:
            hold = await a.node.locks.acquire(wanted)
            submission = await a.submit("t")
            async with running(a, submission):

                async def waits():
                    return await a.node.rows("select from lock_ticket")

                await eventually(waits)
                await ask_cancel(a, submission.command_id)
                assert (await final(a, submission)).state == "cancelled"
            assert trial.happened == []
            a.node.locks.release(hold)

            async def nothing_left():
                return not await a.node.rows(
                    "select from lock_ticket union all select from lock_grant"
                )

            await eventually(nothing_left)

    run(story())


def test_what_is_not_taken_back_is_not_cancelled_either(database_url):
    async def story():
        trial = Trial()
        trial.shut("host acts", "after prepared")
        steps = (trial.write("one"), trial.host("host", undo=None), trial.write("after"))
        async with engine(database_url, "a", more=trial.definition("t", *steps)) as a:
            submission = await a.submit("t")
            async with running(a, submission):
                await trial.reached("host acts")
                with pytest.raises(Conflict, match="Host is not taken back"):
                    await ask_cancel(a, submission.command_id)
                trial.gates["host acts"].set()
                await trial.reached("after prepared")
                with pytest.raises(Conflict, match="can't be cancelled any more"):
                    await ask_cancel(a, submission.command_id)
                trial.gates["after prepared"].set()
                assert (await final(a, submission)).state == "succeeded"
            with pytest.raises(Conflict, match="ended already"):
                await ask_cancel(a, submission.command_id)
            with pytest.raises(NotFound):
                await ask_cancel(a, new_id())

    run(story())


def test_a_request_that_comes_too_late_changes_nothing(database_url):
    async def story():
        trial = Trial()
        trial.shut("host acts")
        steps = (trial.host("host", undo=None), trial.write("after"))
        async with engine(database_url, "a", more=trial.definition("t", *steps)) as a:
            submission = await a.submit("t")
            async with running(a, submission):
                await trial.reached("host acts")
                await a.node.db.statement(  # as if it had been asked for before the step began
                    "update command set cancel_asked_at = now(), cancel_asked_by = 'operator'"
                )

                async def heard():
                    return a.runner._halts[submission.command_id].reason

                await eventually(heard)
                trial.gates["host acts"].set()
                assert (await final(a, submission)).state == "succeeded"

    run(story())


@pytest.mark.parametrize("why", ["cancelled", "overdue"])
def test_an_adopter_halts_what_was_halted_while_nobody_ran_it(database_url, why):
    async def story():
        trial = Trial()
        trial.shut("host acts")
        more = trial.definition("t", trial.write("one"), trial.host("host"), trial.write("two"))
        async with (
            engine(database_url, "a", more=more) as a,
            engine(database_url, "b", more=more) as b,
        ):
            submission = await a.submit("t")
            async with running(a, submission):
                await trial.reached("host acts")
                await a.node.die()
                if why == "cancelled":
                    await ask_cancel(b, submission.command_id)
                else:
                    await b.node.db.statement("update command set deadline_at = now()")
                view = await b.adopt(submission.command_id)
            ends = {"cancelled": ("cancelled", "Cancelled"), "overdue": ("failed", "Expired")}
            assert (view.state, view.error_kind) == ends[why]
            assert trial.happened.count("host undone") == trial.happened.count("one undone") == 1
            assert "two prepared" not in trial.happened

    run(story())


def test_a_command_is_halted_when_its_deadline_passes(database_url):
    async def story():
        trial = Trial()
        trial.shut("two prepared")
        more = trial.definition("t", trial.write("one"), trial.write("two"))
        async with engine(database_url, "a", more=more) as a:
            submission = Submission(name="t", subject_id=new_id(), deadline_s=0.3)
            await a.commands.submit(submission)
            await a.runner.run(submission.command_id)
            view = await a.view(submission.command_id)
            assert (view.state, view.error_kind) == ("failed", "Expired")
            assert trial.happened == ["one prepared", "one", "two prepared", "one undone"]
            waited = (view.ended_at - view.submitted_at).total_seconds()
            assert 0.3 <= waited < 2.0
            assert 0.29 < (view.deadline_at - view.submitted_at).total_seconds() < 0.31

    run(story())


def test_the_definition_says_how_long_a_command_has(database_url):
    async def story():
        trial = Trial()
        more = trial.definition("t", trial.write("one"), deadline_s=7.0)
        async with engine(database_url, "a", more=more) as a:
            view = await a.do("t")
            assert view.state == "succeeded"
            assert 6.9 < (view.deadline_at - view.submitted_at).total_seconds() < 7.1

    run(story())


def test_a_step_tells_how_far_it_is(database_url):
    async def story():
        trial = Trial()
        trial.shut("half")
        async with engine(database_url, "a", more=trial.definition("t", trial.host("host"))) as a:
            submission = await a.submit("t")
            async with running(a, submission):
                await trial.reached("half")
                [step] = (await a.view(submission.command_id)).steps
                assert (step.progress, step.message) == (0.5, "half of it")
                trial.gates["half"].set()
                assert (await final(a, submission)).state == "succeeded"

    run(story())


def test_a_command_whose_runners_keep_ending_is_reversed_and_alerted_of(database_url):
    async def story():
        trial = Trial()
        trial.shut("host acts")
        more = trial.definition("t", trial.write("one"), trial.host("host"))
        async with (
            engine(database_url, "a", more=more) as a,
            engine(database_url, "b", more=more) as b,
        ):
            submission = await a.submit("t")
            async with running(a, submission):
                await trial.reached("host acts")
                await a.node.die()
                await b.node.db.statement(DIE, {"deaths": LIMIT - 1, "id": submission.command_id})

                async def ended():
                    view = await b.view(submission.command_id)
                    await b.runner.run(submission.command_id)
                    return view.deaths == LIMIT

                await eventually(ended)
                assert not (await b.view(submission.command_id)).final, "it rests for a while"
                assert (await b.view(submission.command_id)).attempt == 1
                await b.node.db.statement("update command set not_before = null")
                view = await b.adopt(submission.command_id)
            assert (view.state, view.error_kind) == ("dead", "GivenUp")
            assert view.error == f"given up: {LIMIT} nodes ended while they ran it"
            assert trial.happened[-2:] == ["host undone", "one undone"]
            assert trial.happened.count("host acts") == 1
            [alert] = await b.node.rows(EVENTS, id=submission.command_id)
            assert (alert["code"], alert["severity"]) == (9721, "alert")
            assert str(submission.command_id) in alert["description"]

    run(story())


def test_what_kills_those_who_reverse_it_is_left_as_it_is(database_url):
    async def story():
        trial, told = Trial(), []

        async def unknown(_run, _tx):
            told.append("unknown")

        more = trial.definition("t", trial.write("one"), unknown=unknown)
        async with engine(database_url, "a", more=more) as a:
            submission = await a.submit("t")
            await a.node.db.statement(DIE, {"deaths": LIMIT + 2, "id": submission.command_id})
            await a.runner.run(submission.command_id)
            assert (await a.view(submission.command_id)).state == "dead"
            assert told == ["unknown"]
            assert trial.happened == []

    run(story())


def test_a_step_further_makes_the_deaths_before_it_forgotten(database_url):
    async def story():
        trial = Trial()
        trial.shut("two prepared")
        more = trial.definition("t", trial.write("one"), trial.write("two"))
        async with engine(database_url, "a", more=more) as a:
            submission = await a.submit("t")
            await a.node.db.statement(DIE, {"deaths": LIMIT - 1, "id": submission.command_id})
            async with running(a, submission):
                await trial.reached("two prepared")
                assert (await a.view(submission.command_id)).deaths == 0

    run(story())


def test_adopters_of_what_kills_them_come_later_and_later(database_url):
    async def story():
        async with engine(database_url, "a") as a:
            found = await a.node.rows(
                "select extract(epoch from command_pause(n))::float8 as s"
                " from generate_series(1, 6) n"
            )
            assert [row["s"] for row in found] == [None, 1, 4, 16, 60, 60]

    run(story())


@pytest.mark.parametrize(("deaths", "count", "released"), [(1, 4, 4), (2, 4, 1), (3, 25, 2)])
def test_those_that_rested_are_released_one_at_a_time_or_a_tenth(
    fresh_database_url, deaths, count, released
):
    async def story():
        more = Trial().definition("t", Trial().write("one"))
        async with engine(fresh_database_url, "a", more=more) as a:
            for _ in range(count):
                await a.submit("t")
            await a.node.db.statement(STRAND, {"deaths": deaths})
            async with a.node.db.write() as tx:
                found = await tx.first(REQUEUE)
            assert len(found["jobs"]) == released

    run(story())


def test_a_failure_that_nobody_foresaw_counts_as_the_end_of_a_node(database_url):
    async def story():
        trial = Trial()
        more = trial.definition("t", trial.write("one"))

        async def defect(*_):
            raise BaseException("nobody foresaw it")  # noqa: TRY002 - nothing else gets through

        async with engine(database_url, "a", more=more, reached=defect) as a:
            submission = await a.submit("t")
            with pytest.raises(BaseException, match="nobody foresaw it"):
                await a.runner.run(submission.command_id)
            assert (await a.view(submission.command_id)).deaths == 1

    run(story())


def test_a_retry_is_a_new_command_and_the_same_one_each_time(database_url):
    async def story():
        trial = Trial()
        failing = trial.write("one", prepare=refusing("not now"))
        more = trial.definition("t", failing) | trial.definition("fine", trial.write("two"))
        async with engine(database_url, "a", more=more) as a:
            first = await a.do("t", answer=42)
            assert first.state == "failed"
            second, again = await retry(a, first.command_id), await retry(a, first.command_id)
            assert second.command_id == again.command_id != first.command_id
            assert (second.retry_of, second.user_name) == (first.command_id, "operator")
            assert (second.subject_id, second.params) == (first.subject_id, {"answer": 42})
            with pytest.raises(Conflict, match="has not ended"):
                await retry(a, second.command_id)
            await a.runner.run(second.command_id)
            third = await retry(a, second.command_id)
            assert third.retry_of == second.command_id
            fine = await a.do("fine")
            with pytest.raises(Conflict, match="has succeeded"):
                await retry(a, fine.command_id)

    run(story())


def test_a_deadline_that_is_none_is_refused(database_url):
    async def story():
        trial = Trial()
        async with engine(database_url, "a", more=trial.definition("t", trial.write("one"))) as a:
            submission = Submission(name="t", subject_id=new_id())
            for deadline_s in (0.0, -1.0, 1e9):
                with pytest.raises(Exception, match="a deadline is"):
                    await a.commands.submit(replace(submission, deadline_s=deadline_s))

    run(story())
