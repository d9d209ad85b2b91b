"""What fires, runs: a work once at a time, a command as itself, and a lost job is found again."""

from __future__ import annotations

import asyncio
from uuid import UUID

from integration.engines import engine
from integration.nodes import TestNode, eventually, node, run
from integration.scheduling import EVERY, WORK, Firing, firing

from engine_pg.configuration.live import LiveSettings
from engine_pg.db.database import Database
from engine_pg.errors import Conflict
from engine_pg.ids import new_id
from engine_pg.schedules import firing as fires
from engine_pg.schedules import works
from engine_pg.schedules.known import KNOWN
from engine_pg.schedules.works import Works
from engine_pg.singletons.retention import Retention

EVENTS = "select description from event_inbox where code = 9724 order by inbox_id"
OLD = """
insert into event (code, description, at)
values (1, 'old', now() - interval '40 d'), (1, 'young', now() - interval '20 d')
"""


class Gate:
    """A work that a test lets go on; it counts how often it was begun."""

    def __init__(self) -> None:
        self.begun = 0
        self.open = asyncio.Event()

    async def __call__(self) -> str:
        self.begun += 1
        await self.open.wait()
        return "done"


def working(one: TestNode, body, **how) -> Works:
    name = one.membership.identity.node
    bells = one.membership._bells
    return Works(one.db, bells, {WORK: body}, member_id=one.member_id, node=name, **how)


async def perform(works_: Works) -> int:
    """Run all that there is to be taken; return how many runs that was."""
    taken = await works_.take()
    await asyncio.wait([asyncio.ensure_future(works_.run(each)) for each in taken] or [nothing()])
    return len(taken)


def nothing() -> asyncio.Future[None]:
    return asyncio.ensure_future(asyncio.sleep(0))


async def queued(a: Firing, name: str = "s", **values: object) -> UUID:
    """Fire a schedule once, as it would be in a long time, and return its run."""
    await a.settle()
    await a.set(name, **EVERY | {"every_s": 86400} | values)
    await a.tick(name)
    return (await a.runs(name))[-1].run_id


def test_a_run_is_taken_by_one_and_tells_how_it_ended(fresh_database_url):
    async def story():
        url, gate = fresh_database_url, Gate()
        async with firing(url) as f, node(url, "a") as a, node(url, "b") as b:
            await queued(f)
            on_a, on_b = working(a, gate), working(b, gate)
            both = [asyncio.ensure_future(perform(each)) for each in (on_a, on_b)]
            await eventually(lambda: asyncio.sleep(0, gate.begun))
            assert await on_a.take() == await on_b.take() == []
            assert [each.state for each in await f.runs("s")] == ["running"]
            gate.open.set()
            assert sorted([await each for each in both]) == [0, 1]
            assert await perform(on_b) == 0
            [ended] = await f.runs("s")
            assert (ended.state, ended.attempt) == ("succeeded", 1)
            assert (gate.begun, ended.outcome) == (1, "done")

    run(story())


def test_a_run_goes_on_elsewhere_when_its_member_ends(fresh_database_url):
    async def story():
        url, gate = fresh_database_url, Gate()
        async with firing(url) as f, node(url, "a") as a, node(url, "b") as b:
            await queued(f)
            dying = asyncio.ensure_future(perform(working(a, gate)))
            await eventually(lambda: asyncio.sleep(0, gate.begun))
            on_b = working(b, gate)
            assert await on_b.take() == []
            await a.die()
            [taken] = await eventually(on_b.take)
            gate.open.set()
            await dying  # it was told by nobody, and what it writes is no longer the run's end
            assert [each.state for each in await f.runs("s")] == ["running"]
            await on_b.run(taken)
            [ended] = await f.runs("s")
            assert (ended.state, ended.node, ended.attempt) == ("succeeded", "b", 2)

    run(story())


def test_a_run_that_was_cancelled_is_another_members_to_begin(fresh_database_url):
    async def story():
        url, gate = fresh_database_url, Gate()
        async with firing(url) as f, node(url, "a") as a, node(url, "b") as b:
            await queued(f)
            drained = asyncio.ensure_future(working(a, gate).serve())
            await eventually(lambda: asyncio.sleep(0, gate.begun))
            drained.cancel()
            await asyncio.wait([drained])
            gate.open.set()
            assert await perform(working(b, gate, accepting=lambda: False)) == 0
            assert await perform(working(b, gate)) == 1
            [ended] = await f.runs("s")
            assert (ended.state, ended.node, ended.attempt) == ("succeeded", "b", 1)

    run(story())


def test_a_run_whose_member_was_not_told_that_it_has_it_is_taken_again(fresh_database_url):
    async def story():
        gate = Gate()
        gate.open.set()
        async with firing(fresh_database_url) as f, node(fresh_database_url, "a") as a:
            await queued(f)
            await working(a, gate).take()  # and the answer is lost
            assert await perform(working(a, gate)) == 1
            [ended] = await f.runs("s")
            assert (ended.state, ended.attempt) == ("succeeded", 2)

    run(story())


def test_a_node_takes_no_more_than_it_has_places_for(fresh_database_url):
    async def story():
        gate = Gate()
        async with firing(fresh_database_url) as f, node(fresh_database_url, "a") as a:
            for number in range(works.PLACES + 2):
                await queued(f, f"s{number}")
            serving = asyncio.ensure_future(working(a, gate).serve())
            await eventually(lambda: asyncio.sleep(0, gate.begun == works.PLACES))
            gate.open.set()
            await eventually(lambda: asyncio.sleep(0, gate.begun == works.PLACES + 2), 4)
            serving.cancel()
            await asyncio.wait([serving])

    run(story())


def test_a_work_that_takes_its_nodes_along_is_given_up(fresh_database_url):
    async def story():
        gate = Gate()
        async with firing(fresh_database_url) as f, node(fresh_database_url, "a") as a:
            await queued(f)
            await f.db.statement(
                "update schedule_run set state = 'running', attempt = %(n)s, member_id = %(m)s",
                {"n": works.ATTEMPTS, "m": new_id()},
            )
            await perform(working(a, gate))
            [ended] = await f.runs("s")
            assert (ended.state, gate.begun) == ("failed", 0)
            assert "each time its node was lost" in ended.outcome

    run(story())


def test_a_failure_is_told_once_for_several_in_a_row(fresh_database_url):
    async def story():
        async def fails() -> str:
            raise Conflict("not today")

        async def breaks() -> str:
            raise KeyError("here")

        async def works_() -> str:
            return "well"

        async with firing(fresh_database_url) as f, node(fresh_database_url, "a") as a:
            said = []
            for body in (fails, breaks, works_, breaks):
                await queued(f)
                await perform(working(a, body))
                run_ = (await f.runs("s"))[-1]
                said.append((run_.state, run_.outcome))
            assert said == [
                ("failed", "not today"),
                ("failed", "a bug: KeyError('here')"),
                ("succeeded", "well"),
                ("failed", "a bug: KeyError('here')"),
            ]
            assert [row["description"] for row in await a.rows(EVENTS)] == [
                "The schedule s failed: not today",
                "The schedule s failed: a bug: KeyError('here')",
            ]

    run(story())


def test_one_tick_waits_for_the_end_of_the_run_before_and_no_second_one(fresh_database_url):
    async def story():
        gate = Gate()
        gate.open.set()
        async with firing(fresh_database_url) as f, node(fresh_database_url, "a") as a:
            await queued(f, overlap="queue_one")
            for _ in range(2):
                await f.tick("s")
            states = [each.state for each in await f.runs("s")]
            assert states == ["queued", "waiting", "skipped"]
            assert await f.turn() < 1  # it looks again soon, whoever ends the run
            assert await perform(working(a, gate)) == 1
            await f.turn()
            assert await perform(working(a, gate)) == 1
            assert {each.state for each in await f.runs("s")} == {"succeeded", "skipped"}
            assert await perform(working(a, gate)) == 0
            assert await f.settle() > 1

    run(story())


def test_a_command_is_submitted_as_the_run_itself(fresh_database_url):
    async def story():
        async with firing(fresh_database_url) as f, engine(fresh_database_url, "a") as a:
            await f.settle()
            how = {"command": "add_data_center", "params": {"name": "lab"}, "every_s": 86400}
            await f.set("s", **how, overlap="skip")
            for expected in ("succeeded", "failed"):
                await f.tick("s")
                run_ = (await f.runs("s"))[-1]
                assert run_.command_id == run_.run_id
                assert run_.state == "queued"
                await f.tick("s")
                busy = (await f.runs("s"))[-1]
                assert (busy.state, busy.command_id) == ("skipped", None)
                await a.runner.run(run_.command_id)
                command = await a.view(run_.command_id)
                assert (command.state, command.user_name) == (expected, "schedule s")
                [shown] = [each for each in await f.runs("s") if each.run_id == run_.run_id]
                assert (shown.state, shown.outcome) == (expected, command.error or "")
            assert "there is another data center with this name" in command.error

    run(story())


def test_a_command_that_waited_begins_when_the_one_before_is_over(fresh_database_url):
    async def story():
        async with firing(fresh_database_url) as f, engine(fresh_database_url, "a") as a:
            await f.settle()
            how = {"command": "add_data_center", "params": {"name": "lab"}, "every_s": 86400}
            await f.set("s", **how, overlap="queue_one")
            for _ in range(2):
                await f.tick("s")
            first, second = await f.runs("s")
            assert (second.state, second.command_id) == ("waiting", None)
            await f.turn()
            assert (await f.runs("s"))[1].state == "waiting"
            await a.runner.run(first.run_id)
            await f.turn()
            _, second = await f.runs("s")
            assert (second.state, second.command_id) == ("queued", second.run_id)

    run(story())


def test_what_fires_is_run_at_once(fresh_database_url, monkeypatch):
    """All of it: the tick, the doorbell, the work, the history."""
    monkeypatch.setattr(works, "_POLL_S", 1000.0)

    async def story():
        url = fresh_database_url
        async with firing(url, listening=True) as f, node(url, "a") as a:
            await f.db.statement(OLD)
            bodies = Retention(a.db, LiveSettings()).works()
            scheduled = Works(a.db, f.bells, bodies, member_id=a.member_id, node="a")
            jobs = [asyncio.ensure_future(f.schedules.run())]
            jobs.append(asyncio.ensure_future(scheduled.serve()))
            try:
                await f.set("s", **EVERY)

                async def ran():
                    return [each for each in await f.runs("s") if each.state == "succeeded"]

                [first, *_] = await eventually(ran, 4)
                assert (first.outcome, first.node) == ("deleted 1 events", "a")
                left = await f.rows("select description from event where code = 1")
                assert [row["description"] for row in left] == ["young"]
                await f.pause("s", paused=True)  # its rings would do for the other's
                await f.set("t", work="trim-members", every_s=3600)
                async with Database(url, on_commit=lambda: None) as api:  # has no doorbell at hand
                    triggered = await fires.triggered(api, "t", new_id(), "me", KNOWN)
                assert triggered.state == "queued"

                async def ran_too():
                    return [each.outcome for each in await f.runs("t") if each.ended_at]

                assert await eventually(ran_too, 4) == ["deleted 0 members"]
            finally:
                for job in jobs:
                    job.cancel()
                await asyncio.wait(jobs)

    run(story())


def test_all_but_the_last_runs_of_each_schedule_are_deleted(fresh_database_url):
    async def story():
        async with firing(fresh_database_url) as f, node(fresh_database_url, "a") as a:
            kept = await queued(f, "other")
            await f.set("s", **EVERY | {"misfire": "fire_all", "keep_runs": 5})
            await f.late("s", 30)
            await f.settle()
            await f.db.statement(
                "update schedule_run set state = 'succeeded', ended_at = now() where schedule = 's'"
                " and due_at < (select max(due_at) from schedule_run where schedule = 's')"
            )
            before = await f.runs("s")
            said = await Retention(a.db, LiveSettings()).trim("runs")
            after = await f.runs("s")
            assert after == before[-6:]  # the open one is none of the last five that are over
            assert said == f"deleted {len(before) - 6} runs"
            assert [each.run_id for each in await f.runs("other")] == [kept]

    run(story())
