"""What the queue does with commands: in which order, at whose expense, and how soon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from integration.nodes import TestNode, eventually, node, run
from integration.queueing import queue

from engine_pg.clock import boottime
from engine_pg.cluster.locks import LockKey, Wanted
from engine_pg.commands import store
from engine_pg.commands.definition import COMMANDS, URGENT, Definition, WriteStep
from engine_pg.commands.registry import REGISTRY
from engine_pg.commands.rows import Submission
from engine_pg.commands.runner import Runner
from engine_pg.commands.service import Commands
from engine_pg.db import queue as served
from engine_pg.db.database import Database
from engine_pg.db.listener import Doorbells
from engine_pg.errors import DatabaseAway, Invalid
from engine_pg.hosts.connections import HostConnections
from engine_pg.hosts.vdsm.client import VdsmDriver
from engine_pg.ids import new_id
from engine_pg.worker import work

FINAL = "select count(*) as n from command where name = %(name)s and state = 'succeeded'"
COMMITS = "select count(*) as n, count(distinct xmin::text) as commits from command"
JOBS = "select count(*) as n from procrastinate_jobs"
MEMBERS = "select count(distinct member_id) as n from member where worker_id is not null"


class Work:
    """Commands of the test: what began and ended, and when."""

    def __init__(self, name: str, *, queue: str = COMMANDS, key: str = "", hold_s: float = 0.0):
        self.began_at: list[float] = []
        self.ended_at: list[float] = []
        self.order: list[int] = []
        self.go = asyncio.Event()
        self.go.set()
        self.hold_s = hold_s
        wanted = [Wanted(LockKey("test", key))] if key else []
        self.definition = Definition(
            name=name,
            subject_kind="test",
            describe=lambda _params: name,
            locks=lambda _command: wanted,
            lock_wait_s=20.0,
            steps=(WriteStep(name="work", title="Work", prepare=self._prepare, write=self._write),),
            event=lambda _run, _error: None,
            queue=queue,
        )

    async def _prepare(self, run):
        self.began_at.append(boottime())
        self.order.append(run.params.get("number", 0))
        await self.go.wait()
        await asyncio.sleep(self.hold_s)

    async def _write(self, _run, _tx):
        self.ended_at.append(boottime())
        return {}


@asynccontextmanager
async def worker(url: str, name: str, *works: Work, places: int = 8) -> AsyncGenerator[TestNode]:
    registry = {each.definition.name: each.definition for each in works}

    def driver(address: str, port: int) -> VdsmDriver:
        return VdsmDriver(address, port)

    async with HostConnections(driver) as hosts, node(url, name) as one:
        bells = Doorbells(url)
        runner = Runner(one.membership, one.db, hosts, bells, registry)
        async with asyncio.TaskGroup() as group:
            jobs = [
                group.create_task(bells.run()),
                group.create_task(
                    work(
                        one.db,
                        one.membership,
                        runner,
                        bells,
                        concurrency=places,
                        urgent_concurrency=2,
                    )
                ),
            ]
            try:
                yield one
            finally:
                for job in reversed(jobs):
                    job.cancel()
                    await asyncio.wait([job])


@asynccontextmanager
async def client(url: str, *works: Work) -> AsyncGenerator[Commands]:
    """Submit as a node does that runs nothing itself."""
    bells = Doorbells(url)
    registry = {each.definition.name: each.definition for each in works}
    async with Database(url, name="client") as db, asyncio.TaskGroup() as group:
        ringing = group.create_task(bells.run())
        yield Commands(db, bells, registry)
        ringing.cancel()


def asked(work: Work, **params: object) -> Submission:
    return Submission(name=work.definition.name, subject_id=new_id(), params=params)


async def final(one: TestNode, work: Work, many: int, bound_s: float = 20.0) -> None:
    async def all_final():
        return (await one.rows(FINAL, name=work.definition.name))[0]["n"] == many

    await eventually(all_final, bound_s)


def test_a_thousand_slow_commands_do_not_delay_an_urgent_one(fresh_database_url):
    async def story():
        slow, urgent = Work("slow"), Work("urgent", queue=URGENT)
        slow.go.clear()
        async with (
            worker(fresh_database_url, "a", slow, urgent) as one,
            client(fresh_database_url, slow, urgent) as commands,
        ):
            async with asyncio.TaskGroup() as group:
                for _ in range(1000):
                    group.create_task(commands.submit(asked(slow)))

            async def all_places_taken():
                return len(slow.began_at) == 8

            await eventually(all_places_taken)
            for number in range(1, 6):
                submitted_at = boottime()
                await commands.submit(asked(urgent))
                await final(one, urgent, number, 5)
                assert urgent.began_at[-1] - submitted_at < 0.5
            assert len(slow.began_at) == 8  # nor do urgent places take them
            await one.rows("select 1")

    run(story())


def test_of_those_that_wait_the_higher_priority_goes_first_and_then_the_first(database_url):
    async def story():
        async with queue(database_url, places={"commands": 1}) as one:
            busy = await one.defer(held=True)
            await one.has_begun(*busy)
            low = await one.defer(2, priority=-1)
            plain = await one.defer(2)
            high = await one.defer(2, priority=5)
            one.release(*busy)
            await one.none_left()
            assert one.begun == busy + high + plain + low

    run(story())


def test_no_worker_takes_more_than_it_has_places_for(database_url):
    async def story():
        async with queue(database_url, places={"commands": 3, "urgent": 2}) as one:
            ids = await one.defer(9, held=True)

            async def three():
                return len(one.begun) >= 3

            await eventually(three)
            one.release(ids[0])

            async def another():
                return len(one.begun) >= 4

            await eventually(another)
            assert len(await one.jobs("doing")) <= 4
            assert len(one.begun) - len(one.ended) == 3
            one.release(*ids)
            await one.none_left()

    run(story())


@pytest.mark.quiet
def test_a_chain_on_one_key_goes_on_at_once(fresh_database_url, monkeypatch):
    monkeypatch.setattr(served, "_POLL_S", 1000.0)

    async def story():
        chain = Work("chain", key="host")
        async with (
            worker(fresh_database_url, "a", chain) as a,
            worker(fresh_database_url, "b", chain),
            client(fresh_database_url, chain) as commands,
        ):
            async with asyncio.TaskGroup() as group:
                for number in range(30):  # more than both have places for
                    group.create_task(commands.submit(asked(chain, number=number)))
            await final(a, chain, 30)
        pairs = zip(chain.ended_at, chain.began_at[1:], strict=False)
        gaps_s = sorted(began - ended for ended, began in pairs)
        assert gaps_s[0] > 0  # one after the other
        assert gaps_s[len(gaps_s) // 2] < 0.1

    run(story())


def test_a_submission_is_heard_by_the_workers_of_other_nodes(fresh_database_url, monkeypatch):
    monkeypatch.setattr(served, "_POLL_S", 1000.0)

    async def story():
        plain = Work("plain")
        async with (
            worker(fresh_database_url, "a", plain) as one,
            client(fresh_database_url, plain) as commands,
        ):

            async def served_by():
                return (await one.rows(MEMBERS))[0]["n"]

            await eventually(served_by)
            for number in range(1, 6):
                await commands.submit(asked(plain))
                await final(one, plain, number, 5)

    run(story())


async def thinking_better_of_it(db: Database, submission: Submission) -> None:
    async with db.write() as tx:
        await store.submit(tx, store.written(submission, description="no", subject_kind="test"))
        raise Invalid("not after all")


def test_a_job_comes_and_goes_with_its_callers_transaction(fresh_database_url, monkeypatch):
    monkeypatch.setattr(served, "_POLL_S", 1000.0)

    async def story():
        plain = Work("plain")
        async with worker(fresh_database_url, "a", plain) as one:
            refused, taken = asked(plain, number=1), asked(plain, number=2)
            with pytest.raises(Invalid):
                await thinking_better_of_it(one.db, refused)
            async with one.db.write() as tx:
                await store.submit(tx, store.written(taken, description="yes", subject_kind="test"))
                assert (await one.rows(JOBS))[0]["n"] == 0  # nobody sees it before the commit
            await final(one, plain, 1)
            for number in (3, 4, 5):  # rung by the commit itself: all others have rung by then
                async with one.db.write() as tx:
                    another = asked(plain, number=number)
                    await store.submit(
                        tx, store.written(another, description="yes", subject_kind="test")
                    )
                await final(one, plain, number - 1, 5)
            assert plain.order == [2, 3, 4, 5]

    run(story())


def test_submissions_at_once_are_one_commit_and_each_is_certain(fresh_database_url):
    async def story():
        plain = Work("plain")
        async with (
            client(fresh_database_url, plain) as commands,
            Database(fresh_database_url) as db,
        ):
            again = asked(plain)
            ids = [asked(plain) for _ in range(200)]
            async with asyncio.TaskGroup() as group:
                for each in (*ids, again, again):
                    group.create_task(commands.submit(each))
            rows = await db.once(COMMITS)
            assert rows[0]["n"] == 201
            assert rows[0]["commits"] <= 4
            jobs = await db.once("select count(*) as n from procrastinate_jobs")
            assert jobs[0]["n"] == 201

    run(story())


STOLEN = "update command set attempt = attempt + 1 where name = 'plain'"
STEPS = "select count(*) as n from command_step"


def test_a_runner_that_was_superseded_concludes_nothing(fresh_database_url):
    async def story():
        plain = Work("plain")
        plain.go.clear()
        async with (
            worker(fresh_database_url, "a", plain) as one,
            client(fresh_database_url, plain) as commands,
        ):
            await commands.submit(asked(plain))

            async def begun():
                return plain.began_at

            await eventually(begun)
            await one.db.statement(STOLEN)  # as when somebody else had claimed it meanwhile
            plain.go.set()

            async def over():
                return plain.ended_at and not one.claims.commands

            await eventually(over)
            assert (await one.rows(FINAL, name="plain"))[0]["n"] == 0
            assert (await one.rows(STEPS))[0]["n"] == 0

    run(story())


def test_a_worker_that_fails_while_it_stops_is_not_started_anew(database_url):
    async def story():
        entered, cancelled, bells = asyncio.Event(), asyncio.Event(), Doorbells(database_url)

        async def nothing(_) -> None: ...

        async def registered(_) -> None:
            entered.set()
            await cancelled.wait()
            raise DatabaseAway("the server went away")

        serving = asyncio.ensure_future(
            served.serve_jobs(
                database_url, nothing, places={}, registered=registered, bell=bells.bell("x")
            )
        )
        await entered.wait()
        serving.cancel()
        await asyncio.sleep(0)
        cancelled.set()
        async with asyncio.timeout(10):
            await asyncio.wait([serving])
        assert serving.cancelled()

    run(story())


def test_what_monitoring_asks_for_is_urgent():
    assert REGISTRY["reconcile_vm"].queue == URGENT
    assert REGISTRY["add_vm"].queue == COMMANDS
