"""Each tick fires once: whoever fires it, whatever befalls the commit, whoever changes it when."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest
from integration.nodes import eventually, run
from integration.scheduling import ADMIN, COMMAND, EVERY, HOURLY, TILED, WORK, firing
from integration.stops import stop_at

from engine_pg.commands.registry import REGISTRY
from engine_pg.errors import Conflict, Invalid, NotFound, OutcomeUnknown, Outdated
from engine_pg.ids import new_id
from engine_pg.schedules import firing as fires
from engine_pg.schedules import store
from engine_pg.schedules.firing import Schedules
from engine_pg.schedules.known import KNOWN
from engine_pg.schedules.store import Known

AHEAD = """
create schema ahead;
create function ahead.clock_timestamp() returns timestamptz language sql
  as $$ select pg_catalog.clock_timestamp() + interval '30 days' $$
"""
KILL = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = %s"


def test_of_nodes_that_fire_at_once_each_tick_gets_one(fresh_database_url):
    async def story():
        url = fresh_database_url
        async with firing(url, "a") as a, firing(url, "b") as b, firing(url, "c") as c:
            await a.settle()
            for number in range(4):
                await a.set(f"s{number}", **HOURLY if number % 2 else COMMAND)
                await a.late(f"s{number}", 50 * 3600)
            for _ in range(6):
                await asyncio.wait([asyncio.ensure_future(each.turn()) for each in (a, b, c) * 2])
            submitted = await a.commands()
            assert len(submitted) == 100
            for number in range(4):
                [tiled] = await a.rows(TILED, name=f"s{number}", every_s=3600)
                assert tiled["whole"]
                assert tiled["ticks"] == tiled["rows"] == 50
                assert (await a.get(f"s{number}")).fired == 50
                if number % 2 == 0:
                    assert {str(each.run_id) for each in await a.runs(f"s{number}")} <= {*submitted}

    run(story())


def test_who_is_frozen_over_one_schedule_holds_up_no_other(fresh_database_url):
    async def story():
        async with firing(fresh_database_url) as a:
            for name in ("frozen", "other"):
                await a.set(name, **EVERY)
                await a.late(name, 5)
            with psycopg.connect(fresh_database_url) as frozen:
                frozen.execute("select from schedule where name = 'frozen' for update")
                async with asyncio.timeout(3):  # less than a lock is waited for
                    await a.turn()
                assert await a.runs("other")
                assert not await a.runs("frozen")
            await a.turn()
            assert await a.runs("frozen")

    run(story())


@pytest.mark.parametrize("lose", ["done", "undone"])
def test_a_commit_whose_answer_was_lost_fires_once(fresh_database_url, lose):
    async def story():
        async with firing(fresh_database_url) as a:
            await a.settle()
            await a.set("s", **COMMAND)
            await a.late("s", 20 * 3600)
            a.db.lose = lose
            with pytest.raises(OutcomeUnknown):
                await a.turn()
            assert bool(await a.runs("s")) == (lose == "done")
            await a.settle()
            [tiled] = await a.rows(TILED, name="s", every_s=3600)
            assert tiled["whole"]
            assert tiled["ticks"] == tiled["rows"] == len(await a.commands()) == 20

    run(story())


@pytest.mark.parametrize(
    "event",
    [
        "before insert on schedule_run",
        "before insert on command",
        "before insert on procrastinate_jobs",
        "before update on schedule",
    ],
)
def test_a_node_that_dies_while_it_fires_leaves_all_or_nothing(fresh_database_url, event):
    async def story():
        url = fresh_database_url
        async with firing(url, "dies") as dies, firing(url, "b") as b:
            await b.settle()
            await b.set("s", **COMMAND)
            await b.late("s", 3 * 3600)
            when, _, table = event.partition(" on ")
            async with stop_at(url, table, when) as stop:
                turn = asyncio.ensure_future(dies.turn())
                await stop.reached()
                with psycopg.connect(url, autocommit=True) as psql:
                    psql.execute(KILL, ["dies"])
            with suppress(Exception):
                await turn
            assert await b.runs("s") == []
            assert await b.commands() == []
            await b.turn()
            assert len(await b.runs("s")) == len(await b.commands()) == 3

    run(story())


def test_a_schedule_that_is_moved_back_by_hand_runs_no_tick_again(fresh_database_url):
    async def story():
        async with firing(fresh_database_url) as a:
            await a.settle()
            await a.set("s", **COMMAND)
            await a.late("s", 5 * 3600)
            await a.turn()
            submitted = await a.commands()
            assert len(submitted) == 5
            await a.late("s", 3 * 3600)
            await a.turn()
            await a.db.statement("update schedule set anchor_at = anchor_at - interval '1 h'")
            await a.settle()
            await a.late("s", 3 * 3600)
            assert await a.turn() == 0.0
            assert await a.commands() == submitted

    run(story())


def test_the_databases_clock_decides_and_no_nodes(fresh_database_url):
    """The server's clock is a month ahead of everybody's: what is due then, is due now."""

    async def story():
        with psycopg.connect(fresh_database_url, autocommit=True) as psql:
            psql.execute(AHEAD)
        ahead = f"{fresh_database_url}?options=-csearch_path%3Dahead,pg_catalog,public"
        async with firing(fresh_database_url) as here, firing(ahead) as there:
            defined = await here.set("s", work=WORK, every_s=86400, misfire="fire_all")
            assert defined.due_at - defined.changed_at > timedelta(hours=23)
            assert await here.settle() > 0
            assert await here.runs("s") == []
            await there.turn()
            assert 29 <= len(await there.runs("s")) <= 30
            after = await there.get("s")
            assert after.due_at - defined.due_at >= timedelta(days=29)
            assert await here.settle() > 0  # for this clock all of that is to come

    run(story())


def test_a_clock_that_is_put_back_fires_no_tick_again(fresh_database_url):
    async def story():
        with psycopg.connect(fresh_database_url, autocommit=True) as psql:
            psql.execute(AHEAD)
        ahead = f"{fresh_database_url}?options=-csearch_path%3Dahead,pg_catalog,public"
        async with firing(fresh_database_url) as here, firing(ahead) as there:
            await here.set("s", work=WORK, every_s=86400, misfire="fire_all")
            await there.turn()
            last = (await there.get("s")).last_due_at
            changed = await here.set("s", jitter_s=5)  # its times are found anew
            assert changed.due_at > last

    run(story())


def test_what_was_missed_is_made_up_for_by_one_run_and_told(fresh_database_url):
    async def story():
        async with firing(fresh_database_url) as a:
            await a.set("s", **EVERY | {"misfire": "fire_once", "grace_s": 2})
            await a.set("skips", **EVERY | {"misfire": "skip", "grace_s": 2})
            for name in ("s", "skips"):
                await a.late(name, 500)  # more than one transaction takes
            for _ in range(10):
                await a.turn()
            for name, state in (("s", "queued"), ("skips", "skipped")):
                found = await a.runs(name)
                [tiled] = await a.rows(TILED, name=name, every_s=1)
                assert tiled["whole"]
                assert tiled["ticks"] >= 500
                misfires = [each for each in found if each.cause == "misfire"]
                began = [each for each in misfires if each.state == "queued"]
                assert len(began) == (1 if state == "queued" else 0)
                assert sum(each.ticks for each in misfires) >= 495
                row = await a.get(name)
                assert (row.fired, row.skipped) == (
                    sum(each.state == "queued" for each in found),
                    sum(each.ticks for each in found if each.state == "skipped"),
                )

    run(story())


def test_a_paused_schedule_fires_nothing_then_or_later(fresh_database_url):
    async def story():
        async with firing(fresh_database_url) as a:
            await a.set("s", **HOURLY)
            await a.pause("s", paused=True)
            await a.late("s", 10 * 3600)
            assert await a.settle() > 0
            assert await a.runs("s") == []
            resumed = await a.pause("s", paused=False)
            assert resumed.due_at > resumed.changed_at
            await a.turn()
            assert await a.runs("s") == []
            async with a.db.write() as tx:
                events = await tx.all("select description from event_inbox order by inbox_id")
            assert [event["description"] for event in events] == [
                "The schedule s was added by a@internal.",
                "The schedule s was paused by a@internal.",
                "The schedule s was resumed by a@internal.",
            ]

    run(story())


def test_a_tick_that_is_due_outlives_a_change_of_anything_but_the_times(fresh_database_url):
    async def story():
        async with firing(fresh_database_url) as a:
            await a.set("s", **EVERY)
            await a.late("s", 10)
            await a.set("s", description="what for", grace_s=5)
            assert await a.turn() == 0
            assert len(await a.runs("s")) >= 10
            await a.late("s", 10)
            changed = await a.set("s", every_s=3600)
            assert changed.due_at > changed.changed_at
            before = len(await a.runs("s"))
            await a.turn()
            assert len(await a.runs("s")) == before

    run(story())


def test_a_change_by_sql_is_planned_anew_and_one_past_the_rules_is_set_aside(fresh_database_url):
    async def story():
        async with firing(fresh_database_url) as a:
            before = await a.set("s", **EVERY)
            await a.set("t", **EVERY)
            await a.db.statement("update schedule set every_s = 3600 where name = 's'")
            await a.turn()
            after = await a.get("s")
            assert after.version > before.version
            assert (after.due_at - after.anchor_at) % timedelta(hours=1) == timedelta()
            await a.db.statement("update schedule set zone = 'Europe/Nowhere' where name = 's'")
            await a.late("t", 3)
            await a.turn()
            assert len(await a.runs("t")) >= 3
            aside = await a.get("s")
            assert "'Europe/Nowhere' is no time zone" in aside.problem
            assert await a.settle() > 0  # and it is not found due again and again
            await a.set("s", zone="Europe/Berlin")
            assert (await a.get("s")).problem == ""

    run(story())


def test_a_schedule_ends_with_its_last_tick(fresh_database_url):
    async def story():
        async with firing(fresh_database_url) as a:
            defined = await a.set("s", **EVERY)
            await a.set("s", ends_at=defined.due_at + timedelta(seconds=2.5))
            await a.late("s", 0)
            await a.db.statement("update schedule set fires_at = fires_at - interval '1 h'")

            async def over():
                await a.turn()
                return (await a.get("s")).fires_at is None

            await eventually(over)
            assert [each.due_at - defined.due_at for each in await a.runs("s")] == [
                timedelta(seconds=number) for number in range(3)
            ]
            with pytest.raises(Invalid, match="s would never fire again"):
                await a.set("s", ends_at=defined.due_at)

    run(story())


def test_a_node_hears_of_a_change_and_wakes_for_the_tick(fresh_database_url):
    async def story():
        async with (
            firing(fresh_database_url, listening=True) as a,
            firing(fresh_database_url) as b,
        ):
            assert await a.settle() >= fires.POLL_S
            running = asyncio.ensure_future(a.schedules.run())
            await b.set("s", **EVERY)

            async def fired():
                return [each.fired_by for each in await b.runs("s")]

            assert (await eventually(fired, 4))[0] == "a"
            late = [each.fired_at - each.due_at for each in await b.runs("s")]
            assert late[0] < timedelta(seconds=0.5)
            running.cancel()

    run(story())


def test_who_has_nothing_to_fire_asks_the_database_seldom(fresh_database_url):
    async def story():
        async with firing(fresh_database_url) as a:
            asked = 0
            once = a.db.once

            async def counted(*words):
                nonlocal asked
                asked += 1
                return await once(*words)

            a.db.once = counted
            await a.settle()
            assert (await a.get("trim-events")).due_at is not None  # its own are declared
            asked = 0
            assert await a.turn() >= fires.POLL_S
            assert asked == 1

    run(story())


# --- trigger


def test_a_trigger_fires_once_however_often_it_is_repeated(fresh_database_url):
    async def story():
        async with firing(fresh_database_url) as a:
            await a.set("s", **COMMAND | {"overlap": "skip"})
            await a.pause("s", paused=True)
            run_id = new_id()
            for lose in ("done", "undone", ""):
                a.db.lose = lose
                found = await fires.triggered(a.db, "s", run_id, "me", KNOWN)
                assert (found.run_id, found.cause, found.fired_by) == (run_id, "trigger", "me")
            assert [each.run_id for each in await a.runs("s")] == [run_id]
            assert await a.commands() == [str(run_id)]
            with pytest.raises(Conflict, match="s does not fire: the run before was not over"):
                await fires.triggered(a.db, "s", new_id(), "me", KNOWN)
            with pytest.raises(NotFound):
                await fires.triggered(a.db, "t", new_id(), "me", KNOWN)

    run(story())


# --- what is wrong


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "either work or command should be given"),
        ({"work": WORK}, "either cron or every_s should be given"),
        ({"work": WORK, "cron": "* * * * *", "every_s": 5}, "either cron or every_s"),
        ({"work": WORK, "cron": "61 * * * *"}, "'61 [*] [*] [*] [*]' is no cron expression: Bad"),
        ({"work": WORK, "cron": "* * * * *", "zone": "Berlin"}, "'Berlin' is no time zone"),
        ({"work": WORK, "every_s": 0.5}, "every_s should be greater than or equal to 1, not 0.5"),
        ({"work": WORK, "every_s": 5, "jitter_s": 5}, "jitter_s should be less than every_s"),
        ({"work": WORK, "every_s": 5, "overlap": "no"}, "overlap should be 'allow', 'skip' or"),
        ({"work": WORK, "every_s": 5, "starts_at": "2026-01-01T00:00"}, "starts_at should have"),
        ({"work": "dance", "every_s": 5}, "there is no work dance; there are: trim-commands"),
        ({"command": "dance", "every_s": 5}, "there is no command dance; there are: activate"),
        ({"command": "start_vm", "every_s": 5, "every": 5}, "a schedule has no every"),
        ({"work": WORK, "every_s": 5, "params": {"a": 1}}, "subject_id and params are a command's"),
        ({"work": WORK, "cron": "0 0 31 2 *"}, "no cron expression|never fire again"),
    ],
)
def test_what_is_wrong_is_refused_in_words_and_changes_nothing(database_url, values, said):
    async def story():
        async with firing(database_url) as a:
            with pytest.raises(Invalid, match=said):
                await a.set("wrong", **values)
            with pytest.raises(NotFound):
                await a.get("wrong")

    run(story())


def test_a_command_that_cant_be_described_is_refused_and_set_aside(fresh_database_url):
    picky = Known((), {"start_vm": replace(REGISTRY["start_vm"], describe=lambda p: p["what"])})
    values = {"command": "start_vm", "every_s": 3600, "params": {"what": "it"}}

    async def story():
        async with firing(fresh_database_url) as a:
            async with a.db.write() as tx:
                with pytest.raises(Invalid, match="start_vm can't be called with these params"):
                    await store.assign(tx, "s", values | {"params": {}}, ADMIN, picky)
                await store.assign(tx, "s", values, ADMIN, picky)
            await a.late("s", 3600)
            await a.db.statement("update schedule set params = '{}'")
            others = Schedules(a.db, a.bells, picky, node="b")
            assert await others.turn() == 0.0
            assert "can't be called with these params" in (await a.get("s")).problem
            assert await a.runs("s") == []

    run(story())


def test_what_only_another_release_knows_is_left_to_its_nodes(fresh_database_url):
    async def story():
        async with firing(fresh_database_url) as a:
            await a.settle()
            await a.set("s", **HOURLY)
            await a.db.statement("update schedule set action = 'dance' where name = 's'")
            await a.late("s", 3600)
            assert await a.settle() > 0
            assert await a.runs("s") == []
            newer = Schedules(a.db, a.bells, Known(("dance",), {}), node="b")
            await newer.turn()
            assert [each.fired_by for each in await a.runs("s")] == ["b"]

    run(story())


def test_the_engines_own_keep_what_they_run_and_get_their_defaults_back(database_url):
    async def story():
        async with firing(database_url) as a:
            await a.turn()
            own = await a.get(WORK)
            with pytest.raises(Conflict, match="the engine's own"):
                await a.set(WORK, work="trim-runs")
            assert (await a.set(WORK, every_s=60)).cron is None
            async with a.db.write() as tx:
                with pytest.raises(Outdated, match="trim-events is at version"):
                    await store.remove(tx, WORK, ADMIN, expected=own.version)
                back = await store.remove(tx, WORK, ADMIN)
            assert back.definition == own.definition
            assert back.due_at == own.due_at
            with pytest.raises(Invalid, match="a schedule's name has 1 to 100 of a-z"):
                await a.set("Ä", **EVERY)

    run(story())
