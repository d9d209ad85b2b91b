"""A formation is switched over under load, loses its monitor, and the link between its servers."""

import asyncio
import os
import signal
from pathlib import Path

import pytest
from cluster.conftest import BOUND_S, until
from formation.conftest import NODES, observed

from engine_pg.db.urls import libpq_url
from engine_pg.demo.story import play
from engine_pg.demo.verdict import Figure
from engine_pg.errors import Conflict
from engine_pg.formation.place import MONITOR
from engine_pg.formation.processes import processes_in
from engine_pg.formation.remote import switch_over

VMS = 2
GAP_S = 20.0  # of a loaded machine; the benchmark measures

pytestmark = pytest.mark.timeout(600)  # a formation comes up before the first one


def tell_story(laboratory, incident):
    """Play a story, see every promise kept, and return the figures by name."""

    async def watched(scene):
        async with observed(laboratory) as figures:
            await incident(scene)
            assert await scene.load.each_acknowledged(1, BOUND_S) == []
        said = "\n".join({heard.said for heard in figures.failed})
        assert not figures.failed, f"of {figures.reads} reads failed {len(figures.failed)}: {said}"
        assert figures.reads > 50
        return [Figure("gap_s", "longest time without a write", figures.gap_s, "s", most=GAP_S)]

    story = play(watched, laboratory.target, vms=VMS, seed=1, tell=laboratory.said.append)
    report = laboratory.run(story)
    broken = [figure for figure in report.figures if not figure.kept]
    assert not broken, "\n".join([str(broken), *report.notes])
    return {figure.name: figure.value for figure in report.figures}


async def primary_of(formation) -> str:
    found = (await asyncio.to_thread(formation.state)).primary
    assert found is not None
    return found.name


def test_a_switchover_loses_nothing_and_fails_no_read(whole):
    async def incident(_scene):
        old = await primary_of(whole.formation)
        done = await asyncio.to_thread(whole.formation.switchover, whole.said.append)
        assert done.old == old
        assert done.new == await primary_of(whole.formation)
        formation = whole.formation
        url, monitor_url = libpq_url(formation.url()), formation.monitor_url()
        back = await switch_over(url, monitor_url, whole.said.append)
        assert (back.old, back.new) == (done.new, old)
        assert back.kept, back
        assert (back.members, back.missing, back.lost) == (NODES, [], 0)
        assert back.acknowledged > 0
        assert back.write_gap_s < GAP_S

    tell_story(whole, incident)


def test_without_the_monitor_writes_go_on_and_no_switchover_begins(whole):
    async def story():
        await asyncio.to_thread(whole.formation.signal, MONITOR, signal.SIGKILL)
        async with observed(whole) as figures:
            state = await asyncio.to_thread(whole.formation.state)
            assert state.monitor == "away"
            assert state.primary is not None
            assert any("nothing fails over" in each for each in state.warnings)
            with pytest.raises(Conflict, match="the monitor does not answer"):
                await asyncio.to_thread(whole.formation.switchover, whole.said.append)
        assert figures.gap_s < GAP_S
        assert not figures.failed

    whole.run(story())


def walreceiver_of(place, name) -> int:
    """Return the process of a standby that its primary's log comes in through."""
    [found] = [
        pid
        for pid in processes_in(place.data(name))
        if b"walreceiver" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    return found


def test_commits_that_hang_since_only_the_link_is_cut_are_told_with_what_to_do(whole):
    async def story():
        old = await primary_of(whole.formation)
        [standby] = [name for name in whole.formation.place().nodes if name != old]
        async with whole.target.client() as client:
            seen = {}

            async def known():
                seen.update(await client.formation())
                return seen["monitor"] == "up" and seen["primary"] == old and seen["synchronous"]

            async def hangs():
                seen.update(await client.formation())
                return seen["hang"]

            await until(known)
            assert seen["hang"] is None
            assert {node["name"] for node in seen["nodes"]} == {old, standby}
            receiver = walreceiver_of(whole.formation.place(), standby)
            os.kill(receiver, signal.SIGSTOP)
            try:
                await until(hangs)
                assert f"link from {old} to {standby}" in seen["hang"]["why"]
                assert f"`pg_autoctl enable maintenance` on {standby}" in seen["hang"]["why"]
            finally:
                os.kill(receiver, signal.SIGCONT)

    whole.run(story())
