"""Nodes and the database are killed, frozen and stopped under load; no promise may break."""

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from cluster.conftest import BOUND_S, TTL_S, until
from integration.scheduling import EVERY, TILED, firing

from engine_pg.clock import boottime
from engine_pg.demo.kill_node import PROMISED_S, Takeover, kill_node
from engine_pg.demo.restart_database import restart_database
from engine_pg.demo.story import play
from engine_pg.demo.verdict import Figure
from engine_pg.errors import EngineError

VMS = 10
HANDOVER_S = 1.0
FROZEN_S = 3.0
STATES = "select state from member where member_id = %(member)s"
RENEWAL = "select renewal from member where member_id = %(member)s"
LEADER = "select node from leader join member using (member_id) where name = 'adoption'"
LIVE = "select count(*) as count from member where state = 'live' and member_id = any(%(ids)s)"

with_fencing = pytest.mark.parametrize("laboratory", ["all"], indirect=True)
with_and_without = pytest.mark.parametrize("laboratory", ["all", "none"], indirect=True)


def tell_story(laboratory, incident, *, vms=VMS, seed=0):
    """Play a story, see every promise kept, and return the figures by name."""
    story = play(incident, laboratory.target, vms=vms, seed=seed, tell=laboratory.said.append)
    report = laboratory.run(story)
    broken = [figure for figure in report.figures if not figure.kept]
    assert not broken, "\n".join([str(broken), *report.notes])
    return {figure.name: figure.value for figure in report.figures}


async def renewals(watch, member) -> int:
    return (await watch.rows(RENEWAL, {"member": member["member_id"]}))[0]["renewal"]


async def renewed(watch, member, count: int) -> bool:
    return await renewals(watch, member) >= count


async def is_ended(watch, member) -> bool:
    return [row["state"] for row in await watch.rows(STATES, {"member": member})] == ["ended"]


def children_of(parent: int) -> list[int]:
    statuses = {int(path.parent.name): path for path in Path("/proc").glob("[0-9]*/status")}
    return [pid for pid, path in statuses.items() if f"PPid:\t{parent}\n" in read(path)]


def read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it ended meanwhile
        return ""


async def demo(*words: str) -> tuple[int, str]:
    """Call `engine-pg demo`; return its exit status and what it said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "engine_pg", "demo", *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode, said.decode()


@with_and_without
def test_a_hundred_commands_survive_a_killed_and_a_frozen_node(laboratory):
    async def incident(scene):
        await scene.watch.busiest(2, BOUND_S)
        frozen, killed, _ = await scene.watch.members()
        sleeper = laboratory.stack.processes[frozen["node"]]
        sleeper.freeze()
        scene.target.signal(killed["node"], signal.SIGKILL)
        for member in (killed, frozen):
            await until(lambda member=member: is_ended(scene.watch, member["member_id"]))
        sleeper.thaw()
        assert await scene.load.each_acknowledged(100 // VMS, BOUND_S) == []
        return []

    figures = tell_story(laboratory, incident)
    assert figures["acknowledged"] >= 100
    assert figures["succeeded"] + figures["failed"] + figures["unknown"] == figures["acknowledged"]
    assert figures["succeeded"] >= 90
    assert figures["vms_started"] >= 40


@with_fencing
def test_what_a_killed_node_led_and_ran_goes_on_elsewhere_within_its_lease_and_a_bit(laboratory):
    figures = tell_story(laboratory, kill_node)
    assert figures["ttl_s"] == TTL_S
    assert figures["commands"] >= 1


@with_fencing
def test_running_commands_keep_their_locks_and_tokens_through_a_restart_of_the_database(laboratory):
    figures = tell_story(laboratory, restart_database)
    assert figures["resumed"] >= 1
    assert figures["ended"] == 0


@with_fencing
def test_a_stopped_node_hands_over_at_once_and_lets_no_request_fall(laboratory):
    async def incident(scene):
        victim = await scene.watch.busiest(1, BOUND_S)
        takeover = Takeover(scene.watch, victim["member_id"])
        async with asyncio.TaskGroup() as group:
            group.create_task(laboratory.stack.processes[victim["node"]].stop())
            await takeover.follow(BOUND_S)
        await laboratory.stack.start(victim["node"])
        tries = scene.load.tally.failed
        cut = [each.said for each in tries if "does not answer" not in each.said]
        assert cut == []
        return [
            Figure("leaderships", "led by it", len(takeover.leaderships), least=1),
            Figure("handover_s", "handed over", takeover.leaderships_s, "s", most=HANDOVER_S),
        ]

    tell_story(laboratory, incident)


@with_fencing
def test_after_a_freeze_longer_than_a_lease_the_first_to_come_back_buries_nobody(laboratory):
    async def incident(scene):
        first, *others = await scene.watch.members()
        sleepers = [laboratory.stack.processes[member["node"]] for member in others]
        server = laboratory.stack.embedded.pid()
        family = [server, *children_of(server)]
        await scene.watch.busiest(1, BOUND_S)
        for pid in family:
            os.kill(pid, signal.SIGSTOP)
        for sleeper in sleepers:
            sleeper.freeze()
        try:
            await asyncio.sleep(FROZEN_S)  # how long it lasts is what is tested
        finally:
            for pid in family:
                os.kill(pid, signal.SIGCONT)
        before = await renewals(scene.watch, first)
        await until(lambda: renewed(scene.watch, first, before + 2))
        for sleeper in sleepers:
            sleeper.thaw()
        awake = boottime()
        assert await scene.load.each_acknowledged(2, BOUND_S) == []
        await asyncio.sleep(max(0.0, awake + TTL_S + PROMISED_S - boottime()))
        ids = [member["member_id"] for member in (first, *others)]
        live = (await scene.watch.rows(LIVE, {"ids": ids}))[0]["count"]
        return [Figure("ended", "taken for dead", len(ids) - live, most=0)]

    tell_story(laboratory, incident)


@with_fencing
def test_each_tick_fires_once_and_runs_while_the_leader_is_killed_and_the_database_restarts(
    laboratory,
):
    """The leader of the safety net behind the queue dies, and then the database, ticks going on."""

    async def story():
        async with firing(laboratory.target.database_url) as f:
            await f.set("each-second", **EVERY)
            try:
                await hurt(f)
            finally:
                await f.pause("each-second", paused=True)
            await until(lambda: over(f))
            [tiled] = await f.rows(TILED, name="each-second", every_s=1)
            assert tiled["whole"]
            assert tiled["ticks"] == tiled["rows"] >= 6
            runs = await f.runs("each-second")
            assert {each.state for each in runs} == {"succeeded"}

    async def hurt(f):
        await until(lambda: succeeded(f, 1))
        [leader] = await f.rows(LEADER)
        laboratory.target.signal(leader["node"], signal.SIGKILL)
        await until(lambda: succeeded(f, 3))
        await laboratory.target.restart_database()
        await until(lambda: succeeded(f, 6))
        await laboratory.target.until_whole()

    async def succeeded(f, count):
        with suppress(EngineError):
            return sum(each.state == "succeeded" for each in await f.runs("each-second")) >= count

    async def over(f):
        return {each.state for each in await f.runs("each-second")} <= {"succeeded", "failed"}

    laboratory.run(story())


@with_fencing
def test_the_command_line_tells_the_verdict_on_a_stack_that_runs_already(laboratory, tmp_path):
    state, figures = laboratory.stack.state.path, tmp_path / "figures.json"
    words = ["kill-node", "--state-dir", str(state), "--vms", "4", "--json", str(figures)]
    status, said = laboratory.run(demo(*words))
    assert status == 0, said
    run = json.loads(figures.read_text())["runs"][0]
    assert run["kept"]
    assert run["figures"]["commands_lost"]["value"] == 0
    assert run["figures"]["acknowledged"]["value"] >= 4


@with_fencing
def test_the_hosts_of_a_stack_that_runs_are_as_they_are(laboratory):
    words = ("--state-dir", str(laboratory.stack.state.path), "--fencing", "none")
    status, said = laboratory.run(demo("kill-node", *words))
    assert status == 2
    assert "--fencing is for a stack that the demo starts" in said
