"""A node dies at a boundary of a command, another one goes on: what was to happen happened once.

ENGINE_BOUNDARIES=all    every boundary of every command, killed and frozen (`make soak-commands`)
ENGINE_BOUNDARIES=7      the sample that is drawn by this seed, rather than today's
"""

from __future__ import annotations

import asyncio
import os
import random
import signal

import pytest
from integration.boundary_cases import HOWS, Case, Stage, cases
from integration.crews import Hand, hand, hired
from integration.engines import engine, simulated
from integration.nodes import eventually

from engine_pg.cluster.membership import Lease
from engine_pg.commands.boundaries import end
from engine_pg.commands.registry import REGISTRY

CHOSEN = os.environ.get("ENGINE_BOUNDARIES", "1")
SAMPLE = 5
BOUND_S = 120.0
GRANTS = "select kind, id from lock_grant"
PATIENT = Lease(10.0, 1.0, 1.0)
"""Of those who are not to die, however busy the machine is."""


def sample(seed: str) -> list[Case]:
    """Return some cases, among them both ways to die and a reversal."""
    chance, all_ = random.Random(seed), list(cases())
    drawn = chance.sample(all_, SAMPLE - 1)
    return [*drawn, chance.choice([case for case in all_ if case.fails])]


CASES = list(cases()) if CHOSEN == "all" else sample(CHOSEN)


@pytest.fixture(scope="module")
def runner():
    with asyncio.Runner() as one:
        yield one


@pytest.fixture(scope="module", params=["all", "none"] if CHOSEN == "all" else ["all"])
def hosts(request):
    with simulated(request.param) as simulator:
        yield simulator
        verdict = simulator.verdict()
        assert verdict.clean, verdict.violations


@pytest.fixture(scope="module")
def rescuer(runner, database_url):
    """Have a node that takes work when it is told to, for all cases."""
    one = runner.run(hired(database_url, "rescuer", "--ttl", "10"))
    yield one
    runner.run(one.end())


def test_every_boundary_of_every_command_is_a_case():
    assert {case.at.command for case in cases()} == set(REGISTRY)
    assert {case.how for case in cases()} == set(HOWS)
    assert any(case.fails for case in cases())
    steps = {(each.name, step.name) for each in REGISTRY.values() for step in each.steps}
    assert {(case.at.command, case.at.step) for case in cases()} == steps


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_a_dead_node_had_begun_is_done_once(runner, database_url, hosts, rescuer, case):
    async def bounded() -> None:
        async with asyncio.timeout(BOUND_S), engine(database_url, "director", lease=PATIENT) as a:
            await story(a)

    async def story(a) -> None:
        async with hand(database_url, "victim", "--ttl", "1.5") as victim:
            stage = Stage(a, hosts)
            submission = await stage.set(case.at.command)
            await victim.told("work", str(case.at), case.fails)
            await a.commands.submit(submission)
            await victim.hears("at")
            victim.signal(signal.SIGSTOP if case.how == "frozen" else signal.SIGKILL)
            view = await rescued(a, rescuer, submission)
            assert view.attempt > 1 or case.at == end(REGISTRY[case.at.command])
            await stage.check(case.at.command, view, failed=bool(case.fails))

            async def nothing_held():
                return not await a.node.rows(GRANTS)

            await eventually(nothing_held)  # what is over holds something until its node is ended
            if case.how == "frozen":
                await woken(victim)
                await stage.check(case.at.command, view, failed=bool(case.fails))
                assert await nothing_held()

    runner.run(bounded())


async def rescued(a, rescuer: Hand, submission):
    """Have the other node work until the command has ended."""
    await rescuer.told("work")

    async def final():
        view = await a.view(submission.command_id)
        return view if view.final else None

    try:
        return await eventually(final, 60)
    finally:
        await rescuer.told("rest")


async def woken(victim: Hand) -> None:
    """Let a frozen node go on until it has understood that it was ended."""
    victim.signal(signal.SIGCONT)
    await victim.hears("ended")
