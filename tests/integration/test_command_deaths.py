"""A command that ends every process which runs it: it is given up, and others' work goes on."""

from __future__ import annotations

from integration.crews import hand
from integration.engines import engine
from integration.nodes import eventually, run
from integration.trials import Trial

from engine_pg.supervisor import Background

NODES = 3
LIMIT = 3
NEAR = 3
STATES = "select state, count(*) as n from command where name = 'harmless' group by state"
ALERTS = """
select severity from event_inbox where command_id = %(id)s and code = 9721
"""


def commands():
    trial = Trial()
    deadly = trial.definition("poison", trial.write("one"), trial.host("kill"))
    return deadly | trial.definition("harmless", trial.write("one"), trial.write("two"))


async def kept(url: str, node: str, crashes: list[int]) -> None:
    """Start a node again and again, as whoever supervises it does."""
    while True:
        async with hand(url, node, "--poison", "--limit", str(LIMIT)) as one:
            await one.told("work")
            crashes.append(await one.ends())


async def done(a, name: str) -> None:
    await succeeds(a, await a.submit(name))


async def succeeds(a, submission) -> None:
    async def succeeded():
        return (await a.view(submission.command_id)).state == "succeeded"

    await eventually(succeeded)


async def others_work_until_over(a, poison) -> int:
    """Have others' work done, one after the other, until the command is over; return how much."""
    count = 0
    while not (await a.view(poison.command_id)).final:
        await done(a, "harmless")
        count += 1
    await done(a, "harmless")
    return count + 1


def test_a_command_that_crashes_its_nodes_is_given_up_and_the_work_of_others_goes_on(database_url):
    async def story():
        crashes: list[int] = []
        async with (
            engine(database_url, "director", more=commands()) as a,
            Background() as background,
        ):
            poison = await a.submit("poison")
            near = [await a.submit("harmless") for _ in range(NEAR)]  # whoever begins one has all
            for number in range(NODES):
                background.start(kept(database_url, f"node-{number}", crashes), name="node")
            others = NEAR + await others_work_until_over(a, poison)
            for each in near:
                await succeeds(a, each)
            view = await a.view(poison.command_id)
            assert (view.state, view.deaths) == ("dead", LIMIT), view.error
            assert crashes == [9] * LIMIT
            assert view.steps[0].state == "compensated"
            assert [row["severity"] for row in await a.node.rows(ALERTS, id=poison.command_id)] == [
                "alert"
            ]
            assert others > NEAR + 5
            states = {row["state"]: row["n"] for row in await a.node.rows(STATES)}
            assert states == {"succeeded": others}

    run(story(), 90)
