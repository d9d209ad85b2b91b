"""When answers are told: while the next batch is under way, and before a resume at the latest."""

from __future__ import annotations

import asyncio

import pytest
from integration.nodes import node, run
from integration.stops import stop_at
from integration.test_cluster_locks import cut_lock_session

from engine_pg.cluster.locks import LockKey, Locks, Wanted
from engine_pg.cluster.membership import Lease
from engine_pg.cluster.pace import LEAST, Pace
from engine_pg.cluster.session import LockSession
from engine_pg.errors import OutcomeUnknown

TOKENS = "select array_agg(token) as tokens from lock_grant where kind = 'test'"
RARELY = Lease(ttl_s=20.0, margin_s=2.0, heartbeat_s=5.0)  # whoever looks is told before
SECOND = "new.id = 'second 0'"
MANY = 2 * LEAST


@pytest.fixture
def overlapping(monkeypatch):
    """Nobody is told as long as there is something to send."""
    monkeypatch.setattr(Pace, "first", lambda _pace, _answers, _queued, _most: 0)


@pytest.fixture
def sent(monkeypatch):
    """What happens when a batch is sent: one call for each, which may raise; and how many were."""
    calls = []
    ask = LockSession._ask

    async def asked(session, query, params):
        if params.get("tries", "{}") != "{}" and calls:
            calls.pop(0)()
        return await ask(session, query, params)

    monkeypatch.setattr(LockSession, "_ask", asked)
    return calls


def asked(group: asyncio.TaskGroup, locks: Locks, name: str) -> list[asyncio.Task]:
    keys = [Wanted(LockKey("test", f"{name} {number}")) for number in range(MANY)]
    return [group.create_task(locks.acquire(key)) for key in keys]


@pytest.mark.usefixtures("overlapping")
def test_what_was_granted_is_held_on_though_the_next_batch_fails_before_anybody_is_told(
    fresh_database_url, sent
):
    untold = []

    def fails(session):
        untold.append(len(session._answers))
        raise OutcomeUnknown("the answer is lost")

    async def story():
        url = fresh_database_url
        async with node(url, "a", lease=RARELY) as a, asyncio.TaskGroup() as group:
            second = []
            await a.locks.acquire(Wanted(LockKey("other", "first look")))
            sent.append(lambda: second.extend(asked(group, a.locks, "second")))
            sent.append(lambda: fails(a.session))
            first = asked(group, a.locks, "first")
            holds = [await one for one in first] + [await one for one in second]
            [row] = await a.rows(TOKENS)
            assert sorted(row["tokens"]) == sorted(hold.grants[0].token for hold in holds)
            assert untold == [MANY]
            assert a.membership.session.measures.resumes == 1

    run(story())


@pytest.mark.usefixtures("overlapping")
def test_the_answers_of_a_batch_are_told_while_the_next_one_is_under_way(fresh_database_url, sent):
    async def story():
        url = fresh_database_url
        async with node(url, "a", lease=RARELY) as a, asyncio.TaskGroup() as group:
            async with stop_at(
                url, "lock_grant", "before insert", when="new.id = 'second 0'"
            ) as stop:
                second = []
                await a.locks.acquire(Wanted(LockKey("other", "first look")))
                sent.append(lambda: second.extend(asked(group, a.locks, "second")))
                first = asked(group, a.locks, "first")
                await stop.reached()
                await asyncio.wait(first, timeout=1)
                assert all(one.done() for one in first)
                assert not any(one.done() for one in second)
            await asyncio.wait(second)

    run(story())


@pytest.fixture
def ahead(monkeypatch):
    """The next batch goes as soon as anybody asks."""
    monkeypatch.setattr(Pace, "overlaps", lambda _pace, queued: queued > 0)


@pytest.mark.usefixtures("ahead")
def test_a_batch_goes_before_the_one_before_it_is_answered(fresh_database_url, sent):
    async def story():
        url = fresh_database_url
        async with node(url, "a", lease=RARELY) as a, asyncio.TaskGroup() as group:
            async with stop_at(
                url, "lock_grant", "before insert", when="new.id = 'first 0'"
            ) as stop:
                second, gone = [], asyncio.Event()
                await a.locks.acquire(Wanted(LockKey("other", "first look")))
                sent.append(lambda: second.extend(asked(group, a.locks, "second")))
                sent.append(gone.set)
                first = asked(group, a.locks, "first")
                await stop.reached()
                await gone.wait()
                assert not any(one.done() for one in [*first, *second])
                assert a.session.measures.resumes == 0
            tokens = [(await one).grants[0].token for one in [*first, *second]]
            assert tokens == sorted(tokens)

    run(story())


@pytest.mark.usefixtures("ahead")
def test_what_went_ahead_of_a_lost_answer_is_asked_again(fresh_database_url, sent):
    async def story():
        url = fresh_database_url
        async with node(url, "a", lease=RARELY) as a, asyncio.TaskGroup() as group:
            async with stop_at(
                url, "lock_grant", "before insert", when="new.id = 'first 0'"
            ) as stop:
                second, gone = [], asyncio.Event()
                held = await a.locks.acquire(Wanted(LockKey("test", "released ahead")))
                sent.append(lambda: second.extend(asked(group, a.locks, "second")))
                sent.append(gone.set)
                first = asked(group, a.locks, "first")
                await stop.reached()
                a.locks.release(held)
                await gone.wait()
                await cut_lock_session(a, a)
            holds = [await one for one in [*first, *second]]
            [row] = await a.rows(TOKENS)
            assert sorted(row["tokens"]) == sorted(hold.grants[0].token for hold in holds)
            assert a.membership.session.measures.resumes == 1

    run(story())


def test_the_next_batch_waits_for_the_answer_when_a_commit_is_dear_or_there_is_little_to_send():
    pace = Pace()
    assert not pace.overlaps(1000)  # nothing is known yet
    for _ in range(20):
        pace.told(10, 0.001)
        pace.committed(0.0001)
    assert pace.overlaps(2 * LEAST)
    assert not pace.overlaps(2 * LEAST - 1)
    for _ in range(20):
        pace.committed(0.01)
    assert not pace.overlaps(2 * LEAST)


def test_halves_take_turns_when_a_commit_is_cheap_and_go_together_when_it_is_dear():
    pace = Pace()
    for _ in range(20):
        pace.told(10, 0.001)
    for _ in range(20):
        pace.committed(0.0001)
    assert pace.first(64, 0, 256) == 32
    assert pace.first(32, 64, 256) == 0
    for _ in range(20):
        pace.committed(0.01)
    assert pace.first(64, 0, 256) == 64
    assert pace.first(32, 64, 256) == 32  # all of them ask again before the next batch goes
    assert pace.first(128, 300, 256) == 0  # it is full already


def test_few_requests_go_in_one_batch_and_their_answers_before_it():
    pace = Pace()
    pace.told(1, 1.0)
    assert pace.first(3, 5, 256) == 3
    assert pace.first(0, 5, 256) == 0
