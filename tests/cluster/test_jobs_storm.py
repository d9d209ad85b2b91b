"""A short storm, as `make soak-jobs` has a long one: commands while everything else breaks."""

from __future__ import annotations

import asyncio

import pytest
from jobstorm.storm import Storm, Weather

from engine_pg.db.embedded import EmbeddedPostgres
from engine_pg.db.migrate import upgrade

SHORT = Weather(restart_s=(1.5, 2.5), kill_s=(1.0, 3.0), back_s=(0.1, 0.3), hold_s=0.1)


@pytest.mark.timeout(300)  # each node that is killed must start again, on whatever machine
def test_no_command_is_lost_or_done_twice_while_nodes_and_the_server_die(roomy_folder):
    server = EmbeddedPostgres(roomy_folder)
    try:
        server.start()
        upgrade(server.url())
        log = asyncio.run(Storm(server, server.url(), 1, SHORT).rage(200, nodes=3, rate=40))
    finally:
        server.stop("immediate")
    assert not log.violations
    assert log.submitted == 200
    assert log.restarts > 0
    assert log.kills > 0
