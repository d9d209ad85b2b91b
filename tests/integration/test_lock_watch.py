"""The alarm about the server's table of locks: once for each crossing, whoever leads."""

from __future__ import annotations

from integration.nodes import TestNode, eventually, node, run

from engine_pg.cluster import looks
from engine_pg.cluster.looks import LockTable
from engine_pg.singletons.lock_watch import ALARM, CALM, NAME, LockWatch

TOLD = "select code, severity, description from event where code in (9101, 9102) order by event_id"


def watched(one: TestNode) -> LockWatch:
    return LockWatch(one.db, one.membership.fencing, period_s=0.02)


def test_each_crossing_is_told_once_whoever_leads(fresh_database_url, monkeypatch):
    table = LockTable(10, 100)
    looked = 0

    async def faked(_tx) -> LockTable:
        nonlocal looked
        looked += 1
        return table

    monkeypatch.setattr(looks, "lock_table", faked)

    async def story():
        nonlocal table
        watches: list[LockWatch] = []

        async def watch(leadership) -> None:
            await watches[0].run(leadership)

        async with node(fresh_database_url, "a", singletons={NAME: watch}) as a:
            watches.append(watched(a))

            async def looks_more() -> None:
                seen = looked
                await eventually(lambda: more_than(seen + 3))

            async def more_than(count: int) -> bool:
                return looked > count

            async def codes() -> list[int]:
                return [row["code"] for row in await a.rows(TOLD)]

            for used, told in [
                (50, []),
                (51, [ALARM]),
                (60, [ALARM]),
                (45, [ALARM]),
                (60, [ALARM]),
                (39, [ALARM, CALM]),
                (70, [ALARM, CALM, ALARM]),
            ]:
                table = LockTable(used, 100)
                await looks_more()
                assert await codes() == told
            [alarm, *_] = await a.rows(TOLD)
            assert alarm["severity"] == "alert"
            assert "51 of 100" in alarm["description"]
        async with node(fresh_database_url, "b", singletons={NAME: watch}) as a:
            watches[0] = watched(a)
            await looks_more()
            assert await codes() == [ALARM, CALM, ALARM]

    run(story())


def test_the_table_is_counted_as_the_server_counts_it(fresh_database_url):
    async def story():
        async with node(fresh_database_url, "a") as a, a.db.read() as tx:
            before = (await looks.lock_table(tx)).used
            await tx.all("select pg_advisory_xact_lock_shared(n) from generate_series(1, 500) as n")
            after = await looks.lock_table(tx)
            assert 400 < after.used - before < 600  # what others hold comes and goes meanwhile
            settings = await tx.first(
                "select current_setting('max_locks_per_transaction')::int as locks,"
                " current_setting('max_connections')::int as connections"
            )
            assert settings is not None
            assert after.capacity >= settings["locks"] * settings["connections"]
            assert not after.alarming

    run(story())
