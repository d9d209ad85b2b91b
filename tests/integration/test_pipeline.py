"""A statement that is sent again before its earlier answers have come."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import psycopg
import pytest
import uvloop

from engine_pg.db.database import connect
from engine_pg.db.faults import Duplicate
from engine_pg.db.pipeline import Pipeline
from engine_pg.errors import DatabaseAway, OutcomeUnknown

SCHEMA = """
create table noted (word text constraint noted_key unique deferrable initially immediate);
create function note(p_word text, p_late boolean) returns text language plpgsql as $$
begin
  if p_late then
    set constraints noted_key deferred;
  end if;
  insert into noted values (p_word);
  if p_word = 'odd' then
    raise warning 'that is odd';
  end if;
  perform pg_sleep(case p_word when 'slow' then 30 else 0 end);
  return p_word;
end $$
"""
NOTE = "select note(%(word)s, %(late)s)"
BOUND_S = 10.0


@asynccontextmanager
async def pipeline(url: str):
    connection = await connect(url, name="pipeline")
    await connection.set_autocommit(True)
    await connection.execute(SCHEMA)
    piped = Pipeline(connection, "note", NOTE)

    def ask(word: str | None, *, late: bool = False, bound_s: float = BOUND_S):
        return piped.ask({"word": word, "late": late}, bound_s)

    try:
        yield ask, connection, piped
    finally:
        piped.stop()
        await connection.close()


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request):
    """Return what runs a story on one of the loops: they tell of a connection's end differently."""

    async def bounded(story):
        async with asyncio.timeout(20):
            await story

    return lambda story: request.param(bounded(story))


def gone(pid: int, url: str) -> None:
    """End a session of the server's, and return when it has gone; the loop rests meanwhile."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("select pg_terminate_backend(%s, 10000)", [pid])


def test_answers_come_in_the_order_of_the_questions(empty_database_url, run):
    async def story():
        async with pipeline(empty_database_url) as (ask, connection, piped):
            done = []
            asked = [ask(str(number)) for number in range(50)]
            for number, one in enumerate(asked):
                one.add_done_callback(lambda _, number=number: done.append(number))
            assert len(piped) == 50
            assert [await one for one in asked] == [str(number).encode() for number in range(50)]
            await asyncio.sleep(0)
            assert done == list(range(50))
            # And the connection is psycopg's again.
            cursor = await connection.execute("select count(*) as many from noted")
            assert await cursor.fetchone() == {"many": 50}
            assert await ask("once more") == b"once more"

    run(story())


def test_one_that_fails_is_rolled_back_alone(empty_database_url, run):
    async def story():
        async with pipeline(empty_database_url) as (ask, connection, _piped):
            one, again, other = ask("one"), ask("one"), ask("other")
            assert await one == b"one"
            with pytest.raises(Duplicate, match="noted_key"):
                await again
            assert await other == b"other"
            cursor = await connection.execute("select count(*) as many from noted")
            assert await cursor.fetchone() == {"many": 2}

    run(story())


def test_what_fails_at_its_commit_has_failed(empty_database_url, run):
    async def story():
        async with pipeline(empty_database_url) as (ask, _connection, _piped):
            one, again, other = ask("one"), ask("one", late=True), ask("other")
            assert await one == b"one"
            with pytest.raises(Duplicate):
                await again
            assert await other == b"other"

    run(story())


def test_a_warning_makes_one_outcome_unknown(empty_database_url, run):
    async def story():
        async with pipeline(empty_database_url) as (ask, _connection, _piped):
            one, odd, other = ask("one"), ask("odd"), ask("other")
            assert await one == b"one"
            with pytest.raises(OutcomeUnknown, match="that is odd"):
                await odd
            assert await other == b"other"

    run(story())


def test_no_value_is_no_answer(empty_database_url, run):
    async def story():
        async with pipeline(empty_database_url) as (ask, _connection, _piped):
            with pytest.raises(OutcomeUnknown, match="no value came back"):
                await ask(None)

    run(story())


def test_what_the_socket_does_not_take_at_once_is_sent_as_it_does(empty_database_url, run):
    async def story():
        async with pipeline(empty_database_url) as (ask, connection, _piped):
            await connection.execute("alter table noted drop constraint noted_key")
            words = [letter * 5_000_000 for letter in "abc"]
            asked = [ask(word) for word in words]
            assert [len(await one) for one in asked] == [5_000_000] * 3

    run(story())


def test_who_gets_no_answer_in_time_loses_the_connection_and_those_behind_with_it(
    empty_database_url, run
):
    async def story():
        async with pipeline(empty_database_url) as (ask, connection, piped):
            slow, behind = ask("slow", bound_s=0.2), ask("behind", bound_s=30)
            for one in (slow, behind):
                with pytest.raises(DatabaseAway):
                    await one
            assert len(piped) == 0
            assert connection.broken
            with pytest.raises(DatabaseAway):
                await ask("after")

    run(story())


def test_the_bound_holds_though_the_loop_tells_nothing_of_the_socket(empty_database_url, run):
    async def story():
        async with pipeline(empty_database_url) as (ask, connection, _piped):
            slow = ask("slow", bound_s=0.2)
            asyncio.get_running_loop().remove_reader(connection.fileno())
            with pytest.raises(DatabaseAway):
                await slow

    run(story())


def test_a_backend_that_is_ended_fails_all_that_it_had_to_answer(empty_database_url, run):
    async def story():
        async with pipeline(empty_database_url) as (ask, connection, piped):
            unread = "behind" * 100_000
            asked = [ask("slow", bound_s=60), ask(unread, bound_s=60)]
            gone(connection.info.backend_pid, empty_database_url)
            for one in asked:
                with pytest.raises(DatabaseAway):
                    await one
            assert len(piped) == 0

    run(story())


def test_who_waits_is_told_when_the_connection_is_closed(empty_database_url, run):
    async def story():
        async with pipeline(empty_database_url) as (ask, connection, piped):
            slow = ask("slow")
            piped.stop()
            await connection.close()
            with pytest.raises(DatabaseAway, match="closed"):
                await slow

    run(story())


def test_who_was_cancelled_does_not_take_the_answer_of_the_next(empty_database_url, run):
    async def story():
        async with pipeline(empty_database_url) as (ask, _connection, _piped):
            one, other = ask("one"), ask("other")
            one.cancel()
            assert await other == b"other"

    run(story())
