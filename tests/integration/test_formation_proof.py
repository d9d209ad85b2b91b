"""What proves a switchover notices what it is to notice: lost writes, members that are gone."""

from __future__ import annotations

from dataclasses import replace

from integration.nodes import eventually, node, run

from engine_pg.db.database import Database
from engine_pg.formation import proof
from engine_pg.formation.proof import Writer, missing_after, roll_of
from engine_pg.supervisor import Background

LOSE = "update formation_proof set number = number - 3"
ENDED = "select 1 from member where member_id = %(member)s and state = 'ended'"


async def written(db, *, at_least=5):
    """Let a writer write for a while, and return it."""
    writer = Writer(db.url)
    async with Background() as background:
        background.start(writer.run(), name="writer")
        assert await writer.begun(5.0)

        async def enough():
            return writer.acknowledged >= at_least

        await eventually(enough)
    return writer


def test_writes_that_are_there_are_not_lost_and_those_that_are_not_are_counted(fresh_database_url):
    async def story():
        async with Database(fresh_database_url) as db:
            writer = await written(db)
            assert writer.timeline >= 1
            assert await writer.lost(db) == 0
            writer = await written(db)
            async with db.write() as tx:
                await tx.run(LOSE)
            assert await writer.lost(db) in (2, 3)  # one was perhaps written and not acknowledged
            writer = await written(db)
            async with db.write() as tx:
                await tx.run("delete from formation_proof")
            assert await writer.lost(db) == writer.acknowledged

    run(story())


def test_a_member_that_ended_or_has_not_resumed_in_a_newer_epoch_is_missing(
    fresh_database_url, monkeypatch
):
    monkeypatch.setattr(proof, "_RESUMED_S", 0.5)

    async def story():
        async with (
            Database(fresh_database_url) as db,
            node(fresh_database_url, "stays") as stays,
            node(fresh_database_url, "dies") as dies,
        ):
            before = await roll_of(db)
            assert sorted(before.nodes.values()) == ["dies", "stays"]
            assert await missing_after(db, before) == ["dies", "stays"]  # nothing has happened
            older = replace(before, epoch_id=before.epoch_id - 1)
            assert await missing_after(db, older) == []
            await dies.die()
            await eventually(lambda: stays.rows(ENDED, member=dies.member_id))
            assert await missing_after(db, older) == ["dies"]

    run(story())
