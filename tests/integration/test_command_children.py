"""Commands made of others: submitted once, awaited without a worker, halted together."""

from __future__ import annotations

import asyncio

import pytest
from integration.engines import engine
from integration.nodes import eventually, run
from integration.test_command_halts import ask_cancel, final, retry, running
from integration.trials import Trial

from engine_pg.commands import shown
from engine_pg.commands.rows import Submission
from engine_pg.errors import Conflict
from engine_pg.ids import derived_id, new_id

JOBS = """
select (args->>'command_id')::uuid as id from procrastinate_jobs where status = 'todo'
"""
DROP_JOBS = "delete from procrastinate_jobs"


def family(trial: Trial, *keys: str, **more):
    steps = (trial.write("one"), trial.parent(keys, **more), trial.write("two"))
    return trial.definition("parent", *steps) | trial.child()


async def jobs(one) -> set:
    """Return what the queue would run."""
    return {row["id"] for row in await one.node.rows(JOBS)}


def children_of(submission, *keys: str) -> list:
    return [derived_id(submission.command_id, "family", key) for key in keys]


async def run_by_nobody(a, submission):
    """Return the command once nobody runs it: the next batch gives it up."""
    view = await a.view(submission.command_id)
    return view if view.member_id is None else None


def test_a_parent_goes_on_when_its_last_child_has_ended(database_url):
    async def story():
        trial = Trial()
        async with engine(database_url, "a", more=family(trial, "x", "y")) as a:
            submission = await a.submit("parent")
            await a.runner.run(submission.command_id)
            view = await eventually(lambda: run_by_nobody(a, submission))
            assert view.state == "running"
            x, y = children_of(submission, "x", "y")
            assert {x, y} <= await jobs(a)
            await a.node.db.statement(DROP_JOBS)
            await a.runner.run(x)
            step = (await a.view(submission.command_id)).steps[1]
            assert (step.progress, step.message) == (0.5, "1 of 2 have ended")
            assert await jobs(a) == set()
            await a.runner.run(y)
            assert await jobs(a) == {submission.command_id}
            await a.runner.run(submission.command_id)
            view = await a.view(submission.command_id)
            assert view.state == "succeeded", view.error
            assert trial.happened[-2:] == ["two prepared", "two"]
            child = await a.view(x)
            assert (child.parent_id, child.user_name) == (submission.command_id, "tester")

    run(story())


def test_a_parent_whose_node_dies_has_the_same_children(database_url):
    async def story():
        trial, told = Trial(), asyncio.Event()

        async def dies(_command, step, boundary):
            if (step, boundary) == ("family", "intended"):
                told.set()
                await asyncio.Event().wait()

        more = family(trial, "x", "y")
        async with (
            engine(database_url, "a", more=more, reached=dies) as a,
            engine(database_url, "b", more=more) as b,
        ):
            submission = await a.submit("parent")
            async with running(a, submission):
                await told.wait()
                await a.node.die()
                for child in children_of(submission, "x", "y"):
                    await b.runner.run(child)
                view = await b.adopt(submission.command_id)
            assert view.state == "succeeded"
            assert sorted(trial.happened).count("child x") == trial.happened.count("child y") == 1
            found = await b.node.rows(
                "select from command where parent_id = %(id)s", id=submission.command_id
            )
            assert len(found) == 2

    run(story())


def test_a_parent_fails_with_its_child_after_all_have_ended(database_url):
    async def story():
        trial = Trial()
        async with engine(database_url, "a", more=family(trial, "failing", "x")) as a:
            submission = await a.submit("parent")
            await a.runner.run(submission.command_id)
            for child in children_of(submission, "failing", "x"):
                await a.runner.run(child)
            await a.runner.run(submission.command_id)
            view = await a.view(submission.command_id)
            assert (view.state, view.error) == ("failed", "1 of 2 children failed")
            assert "child x" in trial.happened
            assert trial.happened[-1] == "one undone"
            with pytest.raises(Conflict, match="retry its parent"):
                await retry(a, children_of(submission, "failing")[0])

    run(story())


def test_the_first_child_to_fail_has_the_others_cancelled_where_its_parent_says_so(database_url):
    async def story():
        trial = Trial()
        keys = ("failing", "x", "y")
        more = family(trial, *keys, fail_fast=True)
        async with engine(database_url, "a", more=more) as a:
            submission = await a.submit("parent")
            await a.runner.run(submission.command_id)
            failing, x, y = children_of(submission, *keys)
            await a.node.db.statement(DROP_JOBS)
            trial.shut("child x prepared")
            async with running(a, Submission(name="child", subject_id=new_id(), command_id=x)):
                await trial.reached("child x prepared")
                await a.runner.run(failing)
                assert await jobs(a) == {submission.command_id}

                async def parent_ended():
                    await a.runner.run(submission.command_id)
                    return (await a.view(submission.command_id)).final

                await eventually(parent_ended)
            view = await a.view(submission.command_id)
            assert (view.state, view.error) == ("failed", "3 of 3 children failed")
            assert [(await a.view(each)).state for each in (failing, x, y)] == [
                "failed",
                "cancelled",
                "cancelled",
            ]
            assert not {"child x", "child y", "child y prepared"} & set(trial.happened)
            assert trial.happened[-1] == "one undone"

    run(story())


def test_the_end_of_the_last_child_is_not_lost_on_whoever_just_parks_the_parent(database_url):
    async def story():
        trial = Trial()
        more = family(trial, "x")
        async with (
            engine(database_url, "a", more=more) as a,
            engine(database_url, "b", more=more) as b,
        ):
            submission = await a.submit("parent")
            claims, parking = a.node.membership.claims, []
            vacate = claims.vacate
            claims.vacate = parking.append
            await a.runner.run(submission.command_id)
            assert parking, "it has seen that its child has not ended"
            await b.runner.run(*children_of(submission, "x"))
            async with running(b, submission):  # its job, as the child's end wrote it
                await asyncio.sleep(0)
                vacate(*parking)
                assert (await final(b, submission)).state == "succeeded"

    run(story())


@pytest.mark.parametrize("why", ["cancelled", "overdue"])
def test_a_halted_parent_halts_its_children_and_waits_for_them(database_url, why):
    async def story():
        trial = Trial()
        trial.shut("child x prepared")
        more = family(trial, "x", "y")
        async with engine(database_url, "a", more=more) as a:
            submission = await a.submit("parent")
            await a.runner.run(submission.command_id)
            x, y = children_of(submission, "x", "y")
            async with running(a, Submission(name="child", subject_id=new_id(), command_id=x)):
                await trial.reached("child x prepared")
                await a.node.db.statement(DROP_JOBS)
                if why == "cancelled":
                    await ask_cancel(a, submission.command_id)
                    assert submission.command_id in await jobs(a), "it is to tell its children"
                else:
                    await a.node.db.statement(
                        "update command set deadline_at = now() where command_id = %(id)s",
                        {"id": submission.command_id},
                    )

                async def parent_ended():
                    await a.runner.run(submission.command_id)
                    return (await a.view(submission.command_id)).final

                await eventually(parent_ended)
            states = [(await a.view(each)).state for each in (submission.command_id, x, y)]
            assert states == ["cancelled" if why == "cancelled" else "failed"] + ["cancelled"] * 2
            assert "child y" not in trial.happened
            assert "judged" not in trial.happened
            assert trial.happened[-1] == "one undone"
            assert (await final(a, submission)).final

    run(story())


def test_a_parent_without_children_goes_on_at_once(database_url):
    async def story():
        trial = Trial()
        async with engine(database_url, "a", more=family(trial)) as a:
            assert (await a.do("parent")).state == "succeeded"

    run(story())


def test_what_a_parent_holds_stays_held_while_its_children_run(database_url):
    async def story():
        from engine_pg.cluster.locks import LockKey, Mode, Wanted

        trial = Trial()
        wanted = Wanted(LockKey("vm", str(new_id())), Mode.EXCLUSIVE)
        steps = (trial.parent(("x",)),)
        more = trial.definition("parent", *steps, locks=lambda _: [wanted]) | trial.child()
        async with (
            engine(database_url, "a", more=more) as a,
            engine(database_url, "b", more=more) as b,
        ):
            submission = await a.submit("parent")
            await a.runner.run(submission.command_id)
            held = "select token from lock_grant where member_id is null"

            async def parked():
                return await a.node.rows(held)

            [before] = await eventually(parked)
            async with a.node.db.read() as tx:
                told = await shown.status(tx)
            assert (told["locks"]["parked"], told["locks"]["orphaned"]) == (1, 0)
            assert not any("adopter" in warning for warning in told["warnings"])
            with pytest.raises(Conflict, match="locked"):
                await b.node.locks.acquire(wanted)
            [child] = children_of(submission, "x")
            await b.runner.run(child)
            await b.runner.run(submission.command_id)
            assert (await b.view(submission.command_id)).state == "succeeded"
            assert before["token"] > 0
            b.node.locks.release(await b.node.locks.acquire(wanted, wait_s=5.0))

    run(story())
