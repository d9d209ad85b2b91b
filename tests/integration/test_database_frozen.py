"""Servers that freeze between two words: their kernels go on answering, and no setting helps."""

import psycopg
from integration.nodes import run

from engine_pg.clock import boottime
from engine_pg.db.database import connect


def test_another_host_is_taken_at_once_when_one_freezes_just_after_it_was_reached(
    replicated, monkeypatch
):
    reached = psycopg.AsyncConnection.connect.__func__

    async def story():
        with replicated.private_link() as (link, _):

            async def freezing(cls, conninfo="", **kwargs):
                connection = await reached(cls, conninfo, **kwargs)
                if connection.info.port == link.port:
                    link.freeze()
                return connection

            monkeypatch.setattr(psycopg.AsyncConnection, "connect", classmethod(freezing))
            url = replicated.url_of(link, replicated.pair.primary.link)
            began = boottime()
            connection = await connect(url, name="test")
            assert boottime() - began < 2.0
            await connection.close()

    run(story())
