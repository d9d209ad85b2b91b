"""A failover under an open stream of changes: who follows is told to copy, and has everything."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from apinode import API, FAST, PASSWORD, USER, Api
from defusedxml import ElementTree
from integration.nodes import eventually
from integration.streams import Consumer, following, node_process, run, serving

from engine_pg.api.accounts import users
from engine_pg.api.accounts.passwords import Passwords
from engine_pg.db.database import Database
from engine_pg.errors import EngineError, OutcomeUnknown
from engine_pg.supervisor import Background

ADD = "insert into data_center (data_center_id, name) values (gen_random_uuid(), %(name)s)"
ALL = "select name from data_center"


@dataclass
class Written:
    """What a writer was told of each name that it wrote."""

    acknowledged: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    async def write(self, db: Database, writer: int) -> None:
        number = 0
        while True:
            number += 1
            name = f"{writer}-{number:05d}"
            try:
                await db.statement(ADD, {"name": name})
            except OutcomeUnknown:
                self.unknown.append(name)
            except asyncio.CancelledError:  # the story is over: a statement under way still ends
                self.unknown.append(name)
                raise
            except EngineError:
                await asyncio.sleep(0.05)
            else:
                self.acknowledged.append(name)
            await asyncio.sleep(0.005)

    async def more(self) -> None:
        """Wait until many more writes were acknowledged."""
        before = len(self.acknowledged)

        async def written() -> bool:
            return len(self.acknowledged) >= before + 50

        await eventually(written, 30)

    def judge(self, got: set[str], there: set[str]) -> None:
        assert got == there
        assert set(self.acknowledged) <= got
        assert got <= {*self.acknowledged, *self.unknown}


@asynccontextmanager
async def writing(url: str):
    """Let two writers write beside the block, who notice soon that a server does not answer."""
    async with Database(url, bound_s=1.0, away_s=0.5) as db:
        written = Written()
        async with Background() as background:
            for writer in range(2):
                background.start(written.write(db, writer), name="writer")
            yield written


async def names_in(url: str) -> set[str]:
    async with Database(url) as db:
        return {row["name"] for row in await db.once(ALL)}


async def fail_over(pair, how: str) -> None:
    if how == "dead":
        await asyncio.to_thread(pair.primary.kill)
    await asyncio.to_thread(pair.promote)


async def copied(node: Api) -> set[str]:
    """Return a copy as a client takes it: an answer that may be older than the cursor won't do."""
    while True:
        answer = await node.client.get(f"{API}/datacenters")
        if answer.status_code == 200 and "Engine-Staleness" not in answer.headers:
            return {each.findtext("name") for each in ElementTree.fromstring(answer.content)}
        await asyncio.sleep(0.05)


def resyncs(consumer: Consumer) -> list[Any]:
    return [event for event in consumer.events if event.kind == "resync"]


def names_after(consumer: Consumer, event: Any) -> set[str]:
    rest = consumer.events[consumer.events.index(event) + 1 :]
    return {each.data["row"]["name"] for each in rest if each.kind == "change"}


@pytest.mark.parametrize("old_primary", ["alive", "dead"])
def test_a_stream_is_told_to_copy_after_a_failover_and_loses_nothing(replicated, old_primary):
    async def story():
        async with (
            serving(replicated.url, poll_s=0.2) as node,
            following(Consumer(), node.url, topic="data_center") as consumer,
        ):
            await consumer.begun()
            async with writing(replicated.url) as written:
                await written.more()
                await fail_over(replicated.pair, old_primary)
                await consumer.until(lambda: len(resyncs(consumer)) == 2, 30)
                again = resyncs(consumer)[1]
                assert "epoch" in again.data["reason"]
                copy = await copied(node.api)
                await written.more()
            there = await names_in(replicated.url)
            await consumer.until(lambda: there <= copy | names_after(consumer, again))
            written.judge(copy | names_after(consumer, again), there)
            assert len(resyncs(consumer)) == 2
            numbers = [each["key"] for each in consumer.changes]
            assert len(numbers) == len(set(numbers))  # nothing twice, on either side

    run(story())


@dataclass
class Printed:
    """What `engine-pg changes --follow --json` has printed so far."""

    lines: list[dict[str, Any]] = field(default_factory=list)

    async def read(self, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            self.lines.append(json.loads(line))

    @property
    def resyncs(self) -> list[int]:
        return [number for number, line in enumerate(self.lines) if "resync" in line]

    def names(self, after: int = 0) -> set[str]:
        return {line["row"]["name"] for line in self.lines[after:] if "row" in line}


@asynccontextmanager
async def command_line(url: str, password_file):
    words = ["-m", "engine_pg", "changes", "--follow", "--json", "--topic", "data_center"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *words, "--url", url, "--password-file", str(password_file)),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    printed = Printed()
    try:
        async with Background() as background:
            background.start(printed.read(process.stdout), name="reads what is printed")
            yield printed
    finally:
        process.kill()
        await process.wait()


def test_the_command_line_follows_through_a_failover_under_a_real_node(replicated, tmp_path):
    password_file = tmp_path / "password"
    password_file.write_text(f"{PASSWORD}\n")

    async def story():
        async with Database(replicated.url) as db, db.write() as tx:
            await users.add(tx, USER, await Passwords(FAST).hash(PASSWORD))
        async with (
            node_process(replicated.url, "a") as node,
            command_line(node.url, password_file) as printed,
        ):
            await until(lambda: printed.resyncs)
            async with writing(replicated.url) as written:
                await written.more()
                await fail_over(replicated.pair, "dead")
                await until(lambda: len(printed.resyncs) == 2)
                last = printed.resyncs[1]
                assert "epoch" in printed.lines[last]["resync"]
                copy = await names_in(replicated.url)
                await written.more()
            there = await names_in(replicated.url)
            await until(lambda: there <= copy | printed.names(last))
            written.judge(copy | printed.names(last), there)
            assert len(printed.resyncs) == 2

    async def until(true):
        async def is_so() -> bool:
            return bool(true())

        await eventually(is_so, 30)

    run(story())
