"""Replies that are lost after their commit: what the member does not know of is taken back."""

from __future__ import annotations

import asyncio

import pytest
from integration.nodes import TestNode, eventually, node, run
from integration.stops import stop_at
from integration.test_cluster_locks import alone, cut_lock_session

from engine_pg.cluster.batch import BATCH
from engine_pg.cluster.locks import LockBusy
from engine_pg.errors import OutcomeUnknown

TICKETS = "select ticket from lock_ticket where id = %(id)s and member_id = %(member)s"


def lose_next_grant(one: TestNode, then) -> None:
    """Lose the reply of the next batch that grants, and call `then` before any other follows."""
    session, connection = one.session, one.session._connection
    assert connection is not None
    ask, resume = connection.ask, session._try_resume

    async def lossy(query, params, *how):
        row = await ask(query, params, *how)
        if query is BATCH and any((row["reply"]["acquired"] or {}).get("tokens") or ()):
            session._try_resume = resumed
            raise OutcomeUnknown("the reply was lost")
        return row

    async def resumed():
        session._try_resume = resume
        await resume()
        await then()

    connection.ask = lossy


def test_a_waiter_whose_grant_was_lost_with_its_reply_keeps_its_place_in_line(database_url):
    async def story():
        async with node(database_url, "a") as a, node(database_url, "b") as b:
            key = alone("lost reply")
            holds, order = [await b.locks.acquire(key)], []

            async def wait(one: TestNode, name: str):
                async with one.locks.holding(key, wait_s=20):
                    order.append(name)

            async def ticket_of(one: TestNode):
                return await b.rows(TICKETS, id=key.key.id, member=one.member_id)

            async def take_it_again():
                holds.append(await b.locks.acquire(key))

            # Before it asks: a batch that is under way already would be answered after all.
            lose_next_grant(a, take_it_again)
            async with asyncio.TaskGroup() as group:
                group.create_task(wait(a, "a"))
                before = await eventually(lambda: ticket_of(a))
                b.locks.release(holds[0])
                await eventually(lambda: asyncio.sleep(0, len(holds) == 2))
                assert await eventually(lambda: ticket_of(a)) == before
                group.create_task(wait(b, "b"))
                await eventually(lambda: ticket_of(b))
                b.locks.release(holds[1])
            assert order == ["a", "b"]

    run(story())


def test_who_gives_up_while_the_session_is_lost_is_still_told_who_was_in_the_way(database_url):
    async def story():
        url = database_url
        async with node(url, "a") as a, node(url, "b") as b:
            await a.locks.acquire(alone("given up"))
            asked = asyncio.ensure_future(b.locks.acquire(alone("given up"), wait_s=0.3))
            await eventually(lambda: b.rows(TICKETS, id="given up", member=b.member_id))
            async with stop_at(url, "lock_ticket", "before delete") as stop:
                await stop.reached()
                await cut_lock_session(a, b)
                await stop.go()
                with pytest.raises(LockBusy, match="exclusive by a"):
                    await asked
            assert not await b.rows(TICKETS, id="given up", member=b.member_id)

    run(story())
