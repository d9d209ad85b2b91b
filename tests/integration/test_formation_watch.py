"""The watch of a formation: its table, its events, and commits that hang while nothing commits.

The monitor is a database with the two tables that are asked; `tests/formation` has a real one.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import httpx
import psycopg
from apinode import FAST, PASSWORD, USER, serving
from integration.nodes import eventually, node, run
from integration.roled import roled
from integration.streams import node_process
from integration.test_node_through_failover import logged_in
from psycopg.types.json import Jsonb

from engine_pg.api.accounts import users
from engine_pg.api.accounts.passwords import Passwords
from engine_pg.cli.formation import app
from engine_pg.commands import shown
from engine_pg.db import migrate
from engine_pg.db.database import Database
from engine_pg.formation import kept
from engine_pg.formation.commits import WAITING, CommitWatch, Hang
from engine_pg.formation.state import SELF
from engine_pg.singletons import formation_watch
from engine_pg.singletons.formation_events import COMMITS_HUNG
from engine_pg.singletons.formation_watch import NAME, FormationWatch
from engine_pg.supervisor import Background

MONITOR = """
create schema pgautofailover;
create table pgautofailover.formation (formationid text, number_sync_standbys int);
create table pgautofailover.node (
  formationid text default 'default', nodename text, nodeid bigint, nodehost text, nodeport int,
  reportedstate text, goalstate text, health int default 1, reportedtli int default 1,
  reportedlsn pg_lsn default '0/10', reportedpgisrunning bool default true,
  reportedrepstate text default '', candidatepriority int default 100,
  replicationquorum bool default true, reporttime timestamptz default now());
insert into pgautofailover.formation values ('default', 0);
insert into pgautofailover.node (nodename, nodeid, nodehost, nodeport, reportedstate, goalstate,
                                 reportedrepstate)
values ('node1', 1, 'one', 5432, 'primary', 'primary', 'quorum'),
       ('node2', 2, 'two', 5432, 'secondary', 'secondary', '');
"""
FAIL_OVER = """
update pgautofailover.node
   set reportedstate = case nodename when 'node2' then 'wait_primary' else 'demoted' end,
       goalstate = case nodename when 'node2' then 'wait_primary' else 'catchingup' end,
       reportedtli = 2
"""
TOLD = """
select code, severity from (select code, severity, inbox_id as n from event_inbox
  union all select code, severity, event_id from event) as e where code between 9111 and 9116
"""
LED = "select 1 from leader where name = %(name)s and member_id = %(member)s"
COMMIT = "select pg_logical_emit_message(true, 'test', '')"


@asynccontextmanager
async def watched(url, monitor_url, past=lambda: None):
    """Yield a node that leads the watch."""

    async def watch(leadership):
        await made[0].run(leadership)

    made = []
    async with node(url, "a", singletons={NAME: watch}) as one:
        made.append(
            FormationWatch(one.db, one.membership.fencing, monitor_url, past, period_s=0.02)
        )
        yield one


def kept_as(one, **wanted):
    """Return a check that the table has these values."""

    async def check():
        async with one.db.read() as tx:
            row = await kept.read(tx)
        return row is not None and all(getattr(row, k) == v for k, v in wanted.items()) and row

    return check


def test_what_the_monitor_tells_is_kept_and_each_change_is_told_once(
    fresh_database_url, postgres, monkeypatch
):
    monkeypatch.setattr(formation_watch, "_REFRESH_S", 0.05)

    async def story():
        with postgres.database() as url, psycopg.connect(url, autocommit=True) as monitor:
            monitor.execute(MONITOR)
            async with watched(fresh_database_url, url) as one:
                await eventually(kept_as(one, primary_node="node1", monitor="up"))
                monitor.execute(FAIL_OVER)
                row = await eventually(kept_as(one, primary_node="node2"))
                assert [each.state for each in row.node_states()] == ["demoted", "wait_primary"]
                assert row.wanted_standbys == 0
                monitor.execute("alter schema pgautofailover rename to gone")
                away = await eventually(kept_as(one, monitor="away"))
                assert [each.state for each in away.node_states()] == ["demoted", "wait_primary"]
                async with one.db.read() as tx:
                    warnings = (await shown.status(tx))["warnings"]
                assert any("the monitor does not answer" in each for each in warnings)
                later = await eventually(lambda: looked_after(one, away.looked_at))
                assert later.monitor_seen_at == away.monitor_seen_at
                monitor.execute("alter schema gone rename to pgautofailover")
                await eventually(kept_as(one, monitor="up"))
                assert [each["code"] for each in await one.rows(TOLD)] == [9111, 9114, 9115]

    run(story())


PROOF = "insert into formation_proof (switchover_id, number) values (gen_random_uuid(), 1)"
OVER = "update formation_proof set at = at - interval '16 seconds'"


def test_the_standby_of_a_switchover_alarms_when_it_stays_away_after_it_and_not_before(
    replicated, monkeypatch
):
    monkeypatch.setattr(formation_watch, "_REFRESH_S", 0.05)

    async def story():
        primary = replicated.pair.primary
        async with watched(replicated.url, None) as one:
            await eventually(kept_as(one, synchronous=True))
            await one.db.statement(PROOF)
            primary.configure(synchronous_standby_names="")
            try:
                await eventually(lambda: one.rows(TOLD))
                row = await eventually(kept_as(one, synchronous=False))
                await eventually(lambda: looked_after(one, row.looked_at))
                assert severities(await one.rows(TOLD)) == [(9112, "normal")]
                await one.db.statement(OVER)

                async def alarmed():
                    return len(await one.rows(TOLD)) > 1

                await eventually(alarmed)
                row = await kept_as(one)()
                await eventually(lambda: looked_after(one, row.looked_at))
            finally:
                primary.configure(synchronous_standby_names="standby")
            await eventually(kept_as(one, synchronous=True))
            said = severities(await one.rows(TOLD))
            assert said == [(9112, "normal"), (9112, "alert"), (9113, "normal")]

    run(story())


def severities(events):
    return [(each["code"], each["severity"]) for each in events]


async def looked_after(one, moment):
    async with one.db.read() as tx:
        row = await kept.read(tx)
    return row if row.looked_at > moment else None


def test_of_a_server_that_is_alone_nothing_is_kept(fresh_database_url):
    async def story():
        async with watched(fresh_database_url, None) as one:
            await eventually(lambda: one.rows(LED, name=NAME, member=one.member_id))
            await asyncio.sleep(0.3)  # some ten looks
            assert not await kept_as(one)()

    run(story())


def test_without_a_monitor_the_primary_tells_of_its_standby(replicated):
    async def story():
        async with watched(replicated.url, None) as one:
            row = await eventually(kept_as(one, monitor="none", synchronous=True))
            assert row.standby_names

    run(story())


@asynccontextmanager
async def hanging(replicated):
    """Let a commit hang while the block runs; it goes on afterwards, at the latest."""
    feed = replicated.pair.primary.feed
    async with await psycopg.AsyncConnection.connect(replicated.url) as other:
        feed.freeze()
        try:
            await other.execute(COMMIT)
            going_on = asyncio.ensure_future(other.commit())
            yield
        finally:
            feed.heal()
        await going_on


def test_commits_that_hang_are_seen_without_a_commit_and_told_when_they_go_on(replicated):
    async def story():
        commits = CommitWatch(replicated.url, None, lambda: True, hang_s=0.5, period_s=0.05)
        async with (
            watched(replicated.url, None, lambda: commits.past) as one,
            serving(one.db, wired={"hang": lambda: commits.hang}) as api,
            Background() as background,
        ):
            background.start(commits.run(), name="commit watch")
            await eventually(kept_as(one, monitor="none"))

            async def measured(value):
                text = (await api.client.get("/metrics")).text
                return f"engine_pg_formation_commits_hang {value}" in text

            assert await measured(0)
            async with hanging(replicated):
                await eventually(lambda: measured(1))
                assert "look at the standby" in commits.hang.sentence
                assert commits.hang.waited_s >= 0.5
            await eventually(lambda: measured(0))
            await eventually(lambda: one.rows(TOLD))
            assert [each["code"] for each in await one.rows(TOLD)] == [COMMITS_HUNG]

    run(story())


def test_a_hang_is_told_once_whoever_leads(fresh_database_url):
    async def story():
        hang = Hang(datetime(2026, 1, 1, tzinfo=UTC), 9.0, 3, "look there")
        for _ in range(2):
            async with watched(fresh_database_url, None, lambda: hang) as one:
                await eventually(lambda one=one: one.rows(LED, name=NAME, member=one.member_id))
                await eventually(lambda one=one: one.rows(TOLD))
                await asyncio.sleep(0.3)  # some ten looks
        assert [each["code"] for each in await told_of(fresh_database_url)] == [COMMITS_HUNG]

    run(story())


async def told_of(url):
    async with Database(url) as db, db.read() as tx:
        return await tx.all(TOLD)


def test_whoever_has_no_reason_to_doubt_does_not_look(replicated):
    async def story():
        commits = CommitWatch(replicated.url, None, lambda: False, hang_s=0.1, period_s=0.01)
        async with Background() as background, hanging(replicated):
            background.start(commits.run(), name="commit watch")
            await asyncio.sleep(0.3)  # some thirty looks, if there were any
            assert commits.hang is None

    run(story())


def test_a_node_whose_commits_hang_says_so_when_it_is_asked_whether_it_is_ready(replicated):
    async def story():
        async with Database(replicated.url) as db, db.write() as tx:
            await users.add(tx, USER, await Passwords(FAST).hash(PASSWORD))
        async with (
            node_process(replicated.url, "a") as one,
            httpx.AsyncClient(base_url=one.url, timeout=10, trust_env=False) as client,
        ):
            await logged_in(client)
            replicated.pair.primary.feed.freeze()
            try:

                async def says_so():
                    return "commits hang" in (await client.get("/readyz")).text

                await eventually(says_so, 25.0)
                document = (await client.get("/api/v1/formation")).json()
                assert document["hang"]["sessions"] >= 1
            finally:
                replicated.pair.primary.feed.heal()

            async def ready():
                return (await client.get("/readyz")).json()["status"] == "ready"

            await eventually(ready, 20.0)

    run(story(), 60.0)


def test_the_runtime_role_watches_without_a_right_to_see_what_others_do(postgres):
    async def story():
        with roled(postgres) as made:
            await asyncio.to_thread(migrate.upgrade, made.url("owner"))
            async with watched(made.url("runtime"), None) as one, one.db.read() as tx:
                row = await tx.first(SELF)
                waiting = await tx.all(WAITING)
            assert not row["sees_standbys"]
            assert (row["standbys"], waiting) == ({}, [])

    run(story())


SEEN = """
insert into formation (name, monitor, synchronous, primary_node, nodes, looked_at)
values ('default', 'up', false, 'node1', %(nodes)s, clock_timestamp() - interval '1 minute')
"""
ALONE = {"name": "node1", "address": "one:1", "state": "wait_primary", "goal": "wait_primary",
         "access": "read-write", "healthy": True, "timeline": 3}  # fmt: skip


def test_the_command_line_shows_what_is_known_and_how_old_it_is(fresh_database_url, command_line):
    assert "No formation is known" in command_line(app, "show")
    with psycopg.connect(fresh_database_url) as connection:
        connection.execute(SEEN, {"nodes": Jsonb([ALONE])})
    text = command_line(app, "show")
    assert "wait_primary" in text
    assert "on one server alone" in text
    assert "old" in text
    document = json.loads(command_line(app, "show", "--json"))
    assert document["age_s"] >= 60
    assert (document["primary"], document["synchronous"]) == ("node1", False)
