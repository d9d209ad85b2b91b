"""A node dies at a boundary of a command, another one goes on: what was to happen happened once.

ENGINE_BOUNDARIES=all    every boundary of every command, each way to die (`make soak-commands`)
ENGINE_BOUNDARIES=7      the sample that is drawn by this seed, rather than today's
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from integration.boundary_cases import HOWS, Case, Stage, cases
from integration.crews import Hand, hand, hired
from integration.engines import engine, simulated
from integration.nodes import eventually
from links import Link

from engine_pg.cluster.membership import Lease
from engine_pg.commands.boundaries import end
from engine_pg.commands.registry import REGISTRY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.engines import Hosts

CHOSEN = os.environ.get("ENGINE_BOUNDARIES", "1")
SAMPLE = 5
BOUND_S = 120.0
GRANTS = "select kind, id from lock_grant"
PATIENT = Lease(30.0, 3.0, 3.0)
"""Of those who are not to die, however busy the machine is."""


def sample(seed: str) -> list[Case]:
    """Return some cases, among them each way to die and a reversal."""
    chance, all_ = random.Random(seed), list(cases())
    drawn = [chance.choice([case for case in all_ if case.how == how]) for how in HOWS]
    drawn += chance.sample(all_, SAMPLE - len(drawn) - 1)
    return [*drawn, chance.choice([case for case in all_ if case.fails])]


@dataclass(frozen=True)
class Ways:
    """All ways of a node: to the database, and to each host."""

    url: str
    database: Link
    hosts: dict[int, Link]

    @property
    def words(self) -> list[str]:
        """How the node is told of them."""
        return [word for port, link in self.hosts.items() for word in _via(port, link)]

    def freeze(self) -> None:
        """Let nothing through, and tell nobody."""
        for link in (self.database, *self.hosts.values()):
            link.freeze()

    def heal(self, *, late: bool) -> None:
        """Let everything through; `late`: also what was held back for the hosts.

        A host that checks tokens is to refuse it. For one that does not, a packet that is held
        back for longer than the engine waits is given up by who sent it (`TCP_USER_TIMEOUT`).
        """
        for link in self.hosts.values():
            if not late:
                link.reset()
            link.heal()
        self.database.heal()


def _via(port: int, link: Link) -> tuple[str, str]:
    return "--via", f"{port}={link.port}"


@contextmanager
def ways_to(database_url: str, hosts: Hosts) -> Iterator[Ways]:
    port = urlsplit(database_url).port
    database = Link(port)
    links = {port: Link(port) for _, port in hosts.places}
    try:
        yield Ways(database_url.replace(f":{port}", f":{database.port}"), database, links)
    finally:
        for link in (database, *links.values()):
            link.close()


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
def ways(database_url, hosts):
    with ways_to(database_url, hosts) as those_of_the_victim:
        yield those_of_the_victim


@pytest.fixture(scope="module")
def rescuer(runner, database_url):
    """Have a node that takes work when it is told to, for all cases."""
    one = runner.run(hired(database_url, "rescuer", "--ttl", "30"))
    yield one
    runner.run(one.end())


def test_every_boundary_of_every_command_is_a_case():
    assert {case.at.command for case in cases()} == set(REGISTRY)
    assert {case.how for case in cases()} == set(HOWS)
    assert any(case.fails for case in cases())
    steps = {(each.name, step.name) for each in REGISTRY.values() for step in each.steps}
    assert {(case.at.command, case.at.step) for case in cases()} == steps


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_a_dead_node_had_begun_is_done_once(runner, database_url, hosts, ways, rescuer, case):
    async def bounded() -> None:
        async with asyncio.timeout(BOUND_S), engine(database_url, "director", lease=PATIENT) as a:
            await story(a)

    async def story(a) -> None:
        async with hand(ways.url, "victim", "--ttl", "1.5", *ways.words) as victim:
            stage = Stage(a, hosts)
            submission = await stage.set(case.at.command)
            await victim.told("work", str(case.at), case.fails)
            await a.commands.submit(submission)
            await victim.hears("at")
            hurt(victim, case.how, ways)
            view = await rescued(a, rescuer, submission)
            assert view.attempt > 1 or case.at == end(REGISTRY[case.at.command])
            await stage.check(case.at.command, view, failed=bool(case.fails))

            async def nothing_held():
                return not await a.node.rows(GRANTS)

            await eventually(nothing_held)  # what is over holds something until its node is ended
            if case.how != "killed":
                ways.heal(late=hosts.fencing == "all")
                await woken(victim)
                await stage.check(case.at.command, view, failed=bool(case.fails))
                assert await nothing_held()

    try:
        runner.run(bounded())
    finally:
        ways.heal(late=False)


def hurt(victim: Hand, how: str, ways: Ways) -> None:
    """Have a node go on no further; or go on, and reach nobody."""
    if how == "partitioned":
        ways.freeze()
        victim.signal(signal.SIGCONT)
    else:
        victim.signal(signal.SIGSTOP if how == "frozen" else signal.SIGKILL)


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
    """Let a node go on until it has understood that it was ended."""
    victim.signal(signal.SIGCONT)
    await victim.hears("ended")
