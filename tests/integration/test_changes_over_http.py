"""`GET /api/v1/changes`: nothing lost, nothing twice, whatever breaks, whichever node goes on."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import aclosing
from random import Random

import httpx
import psycopg
import pytest
import typer
from apinode import PASSWORD, USER
from integration.nodes import eventually
from integration.streams import (
    BASIC,
    INSERT,
    PATH,
    PATIENCE_S,
    Consumer,
    add_data_centers,
    following,
    following_until_broken,
    node_process,
    run,
    serving,
)
from typer.testing import CliRunner

from engine_pg.api.changes import wire
from engine_pg.cli.changes import changes
from engine_pg.cli.events import Changes, Wanted
from engine_pg.cluster import orders
from engine_pg.cluster.feed import Cursor
from engine_pg.errors import Invalid, Unauthorized


def names(first: int, last: int) -> list[str]:
    return [f"dc-{number:04d}" for number in range(first, last)]


async def sql(url: str, query: str) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as session:
        await session.execute(query)


# --- what a client gets


def test_a_change_arrives_with_its_row_and_a_cursor(fresh_database_url):
    async def scenario():
        async with (
            serving(fresh_database_url) as node,
            following(Consumer(), node.url, topic="data_center") as consumer,
        ):
            await consumer.begun()
            [first] = consumer.events
            assert (first.kind, first.data["cursor"]) == ("resync", first.id)
            await add_data_centers(fresh_database_url, ["one"])
            await consumer.until(lambda: consumer.changes)
            await sql(fresh_database_url, "update data_center set description = 'a\u2028\nb'")
            await sql(fresh_database_url, "delete from data_center")
            await consumer.until(lambda: len(consumer.changes) == 3)
            added, updated, removed = consumer.changes
            assert added.keys() == {"topic", "key", "op", "version", "at", "row"}
            assert (added["topic"], added["op"], added["row"]["name"]) == (
                "data_center",
                "insert",
                "one",
            )
            assert (updated["version"], updated["row"]["description"]) == (2, "a\u2028\nb")
            assert (removed["op"], removed["key"], removed["row"]) == (
                "delete",
                added["key"],
                None,
            )
            assert all(Cursor.parse(event.id) for event in consumer.events)

    run(scenario())


def test_only_the_topics_asked_for_arrive_and_the_cursor_moves_on_meanwhile(fresh_database_url):
    async def scenario():
        async with (
            serving(fresh_database_url, stream_heartbeat_s=0.5) as node,
            following(Consumer(), node.url, topic=["vm", "setting"]) as consumer,
        ):
            await consumer.begun()
            begun = consumer.last_id
            await add_data_centers(fresh_database_url, names(0, 5))
            await sql(
                fresh_database_url,
                "insert into setting (name, value) values ('accept_wait_s', '1')",
            )
            await consumer.until(lambda: consumer.changes)
            assert [each["topic"] for each in consumer.changes] == ["setting"]
            await add_data_centers(fresh_database_url, names(5, 10))
            last = consumer.events[-1].id
            await consumer.until(lambda: consumer.last_id not in (begun, last))
            assert "heartbeat" in consumer.comments

    run(scenario())


def test_a_client_that_comes_again_gets_what_it_missed_once(fresh_database_url):
    async def scenario():
        async with serving(fresh_database_url) as node:
            consumer = Consumer()
            async with following(consumer, node.url, topic="data_center"):
                await consumer.begun()
                await add_data_centers(fresh_database_url, names(0, 3))
                await consumer.until(lambda: len(consumer.changes) == 3)
            await add_data_centers(fresh_database_url, names(3, 8))
            async with following(consumer, node.url, topic="data_center"):
                await add_data_centers(fresh_database_url, names(8, 10))
                await consumer.until(lambda: len(consumer.changes) == 10)
            assert consumer.names() == names(0, 10)

    run(scenario())


def test_every_id_is_a_place_to_go_on_from(fresh_database_url):
    async def scenario():
        async with serving(fresh_database_url) as node:
            whole = Consumer()
            async with following(whole, node.url, topic="data_center"):
                await whole.begun()
                await sql(
                    fresh_database_url,
                    "insert into data_center (data_center_id, name)"
                    " select gen_random_uuid(), 'dc-' || n from generate_series(1, 12) as s(n)",
                )
                await add_data_centers(fresh_database_url, names(0, 3))
                await whole.until(lambda: len(whole.changes) == 15)
            for number, event in enumerate(whole.events):
                again = Consumer(last_id=event.id)
                await again.connect(node.url, topic="data_center", follow="false")
                assert again.names() == whole.names()[number:]
                assert again.ended

    run(scenario())


def test_what_is_kept_is_told_from_the_start_and_the_stream_ends(fresh_database_url):
    async def scenario():
        async with serving(fresh_database_url) as node:
            await add_data_centers(fresh_database_url, names(0, 4))
            consumer = Consumer()
            await consumer.connect(node.url, **{"from": "start"}, follow="false")
            assert consumer.names() == names(0, 4)
            assert consumer.ended
            await add_data_centers(fresh_database_url, names(4, 6))
            await consumer.connect(node.url, follow="false")
            assert consumer.names() == names(0, 6)

    run(scenario())


# --- who is refused


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"topic": "app_user"}, "There is no topic app_user"),
        ({"topic": ["vm", "api_token"]}, "There is no topic api_token"),
        ({"topic": "_token"}, "There is no topic _token"),
        ({"from": "yesterday"}, "'yesterday' is no cursor"),
        ({"from": "1/5:3:"}, "'5:3:' is no snapshot"),
        ({"limit": 3}, "There is no parameter limit"),
    ],
)
def test_a_wrong_request_is_refused_in_json(fresh_database_url, params, said):
    async def scenario():
        async with serving(fresh_database_url) as node:
            answer = await node.api.client.get(PATH, params=params)
            assert answer.status_code == 400
            assert said in answer.json()["error"]
            assert node.tail.streams == 0

    run(scenario())


def test_strangers_hear_nothing(fresh_database_url):
    async def scenario():
        async with serving(fresh_database_url) as node:
            for authorization in ("Bearer wrong", "Basic d3Jvbmc6d3Jvbmc="):
                consumer = Consumer()
                await consumer.connect(node.url, authorization=authorization)
                assert consumer.status == 401

    run(scenario())


def test_a_stream_ends_soon_after_its_token_did(fresh_database_url, monkeypatch):
    monkeypatch.setattr("engine_pg.api.changes.endpoint._KNOWN_S", 0.2)

    async def scenario():
        async with serving(fresh_database_url, stream_heartbeat_s=0.5) as node:
            bearer = node.api.client.headers["Authorization"]
            consumer = Consumer()
            async with following(consumer, node.url, authorization=bearer):
                await consumer.begun()
                await sql(fresh_database_url, "delete from api_token")
                await consumer.until(lambda: consumer.ended)
            assert "the credentials are good no more" in consumer.comments

    run(scenario())


def test_no_table_with_secrets_is_a_topic_and_no_row_shows_one(fresh_database_url):
    async def scenario():
        async with serving(fresh_database_url) as node:
            consumer = Consumer()
            async with following(consumer, node.url):
                await consumer.begun()
                await node.api.login()
                await add_data_centers(fresh_database_url, ["last"])
                await consumer.until(lambda: consumer.names() == ["last"])
            assert {each["topic"] for each in consumer.changes} <= set(wire.TOPICS)
            for word in ("user", "token", "auth", "password"):
                assert not any(word in topic for topic in wire.TOPICS)

    run(scenario())


def test_one_stream_too_many_is_sent_to_another_node(fresh_database_url):
    async def scenario():
        async with serving(fresh_database_url, streams_per_node=2) as node:
            one, two, three = Consumer(), Consumer(), Consumer()
            async with following(one, node.url):
                async with following(two, node.url):
                    await one.begun()
                    await two.begun()
                    await three.connect(node.url)
                    assert three.status == 503
                    metrics = (await node.api.client.get("/metrics")).text
                    assert "engine_node_streams 2" in metrics

                async def left():
                    return node.tail.streams == 1

                await eventually(left)  # who leaves makes room at once
                async with following(three, node.url):
                    await three.begun()

    run(scenario())


def test_a_head_request_opens_no_stream(fresh_database_url):
    async def scenario():
        async with serving(fresh_database_url) as node:
            answer = await node.api.client.head(PATH)
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith(wire.MEDIA_TYPE)
            assert node.tail.streams == 0

    run(scenario())


# --- readers who are slow, or were passed


def test_a_slow_reader_loses_nothing_and_holds_up_nobody(fresh_database_url):
    async def scenario():
        async with serving(fresh_database_url, window_bytes=1) as node:
            quick = Consumer()
            async with following(quick, node.url, topic="data_center"):
                await quick.begun()
                reader, writer = await slow_client(node.url)
                for number in range(6):
                    await sql(fresh_database_url, BULKY.format(number))
                await quick.until(lambda: len(quick.changes) == 6 * 200, 40)
                got = await read_changes(reader, 6 * 200)
                writer.close()
            ids = re.findall(rb"^event: change\nid: (.*)$", got, re.MULTILINE)
            assert len(ids) == len(set(ids)) == 6 * 200
            told = [found.decode() for found in re.findall(rb'"name":"([^"]+)"', got)]
            assert told == quick.names()

    run(scenario())


BULKY = """
insert into data_center (data_center_id, name, description)
select gen_random_uuid(), {0} || '-' || lpad(n::text, 5, '0'), repeat('x', 20000)
  from generate_series(1, 200) as s(n)
"""


async def slow_client(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a stream and read its head alone, with room for little more."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 14)
    head = f"GET {PATH}?topic=data_center HTTP/1.1\r\nHost: {host}\r\nAuthorization: {BASIC}"
    writer.write(head.encode() + b"\r\n\r\n")
    await reader.readuntil(b"event: resync")
    return reader, writer


async def read_changes(reader: asyncio.StreamReader, count: int) -> bytes:
    """Read until so many changes have come as a whole; the frames of the transfer are taken out.

    Ids do not tell the end: that of a change is where its own reader stood.
    """
    raw = bytearray()
    while count:
        piece = await reader.read(1 << 16)
        assert piece, "the server ended the stream"
        fresh_from = max(0, len(raw) - len(CHANGE) + 1)
        raw += piece
        count -= raw.count(CHANGE, fresh_from)
    while b"\n\n" not in raw[raw.rindex(CHANGE) :]:
        raw += await reader.read(1 << 16)
    return unframed(bytes(raw))


CHANGE = b"event: change\n"


def unframed(raw: bytes) -> bytes:
    """Return the content of chunks; the first one was begun."""
    return re.sub(rb"\r\n[0-9a-f]+\r\n", b"", raw)


def test_a_client_that_takes_nothing_is_cut_off_and_makes_room(fresh_database_url, monkeypatch):
    monkeypatch.setattr("engine_pg.api.changes.endpoint.STALLED_S", 0.5)

    async def scenario():
        async with serving(fresh_database_url) as node:
            _, writer = await slow_client(node.url)
            assert node.tail.streams == 1
            for number in range(6):
                await sql(fresh_database_url, BULKY.format(number))

            async def cut_off() -> bool:
                return node.tail.streams == 0

            await eventually(cut_off, 20)
            writer.transport.abort()

    run(scenario())


def test_who_was_passed_by_retention_is_told_to_resync_and_goes_on(fresh_database_url):
    async def scenario():
        async with serving(fresh_database_url) as node:
            consumer = Consumer()
            async with following(consumer, node.url, topic="data_center"):
                await consumer.begun()
            await add_data_centers(fresh_database_url, names(0, 5))
            await trimmed(fresh_database_url)
            async with following(consumer, node.url, topic="data_center"):
                await consumer.until(lambda: len(consumer.events) == 2)
                assert consumer.events[-1].kind == "resync"
                assert "trimmed" in consumer.events[-1].data["reason"]
                await add_data_centers(fresh_database_url, names(5, 7))
                await consumer.until(lambda: len(consumer.changes) == 2)
            assert consumer.names() == names(5, 7)

    run(scenario())


async def trimmed(url: str) -> None:
    """Trim all; what still runs anywhere on the server, a vacuum too, holds it up for a moment."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as session:

        async def gone() -> bool:
            await session.execute("select feed_trim('0', '0', 0, '0', 1000)")
            left = await session.execute("select from change where topic = 'data_center'")
            return not left.rowcount

        await eventually(gone)


def test_a_truncated_table_is_a_resync_for_those_who_hear_of_it_alone(fresh_database_url):
    async def scenario():
        async with (
            serving(fresh_database_url) as node,
            following(Consumer(), node.url, topic="setting") as concerned,
            following(Consumer(), node.url, topic="data_center") as other,
        ):
            await concerned.begun()
            await other.begun()
            await sql(fresh_database_url, "truncate setting")
            await add_data_centers(fresh_database_url, names(0, 2))
            await other.until(lambda: len(other.changes) == 2)
            await concerned.until(lambda: len(concerned.events) == 2)
            assert [event.kind for event in concerned.events] == ["resync", "resync"]
            assert [event.kind for event in other.events] == ["resync", "change", "change"]

    run(scenario())


def test_a_cursor_of_another_epoch_is_a_resync(fresh_database_url):
    async def scenario():
        async with serving(fresh_database_url) as node:
            await sql(fresh_database_url, "select cluster_epoch_current()")
            consumer = Consumer(last_id="999/700:700:")
            async with following(consumer, node.url, topic="data_center"):
                await consumer.until(lambda: consumer.events)
                assert consumer.events[0].kind == "resync"
                assert "epoch 999" in consumer.events[0].data["reason"]
                await add_data_centers(fresh_database_url, ["after"])
                await consumer.until(lambda: consumer.names() == ["after"])

    run(scenario())


def test_a_new_epoch_is_a_resync_on_every_open_stream_and_all_go_on(fresh_database_url):
    async def scenario():
        async with (
            serving(fresh_database_url, poll_s=0.2) as node,
            following(Consumer(), node.url, topic="data_center") as one,
            following(Consumer(), node.url) as other,
        ):
            await one.begun()
            await other.begun()
            await sql(fresh_database_url, CRASHED)
            await sql(fresh_database_url, CUT)
            for consumer in (one, other):
                await consumer.until(lambda who=consumer: len(resyncs(who)) == 2)
                assert "epoch" in resyncs(consumer)[1].data["reason"]
            await add_data_centers(fresh_database_url, names(0, 3))
            await one.until(lambda: one.names() == names(0, 3))
            await other.until(lambda: other.names() == names(0, 3))
            assert len(resyncs(one)) == len(resyncs(other)) == 2

    run(scenario())


CRASHED = "update cluster_epoch_marker set marker = gen_random_uuid()"
CUT = """
select pg_terminate_backend(pid) from pg_stat_activity
 where datname = current_database() and pid <> pg_backend_pid()
"""


def resyncs(consumer: Consumer) -> list:
    return [event for event in consumer.events if event.kind == "resync"]


# --- nodes that leave, and die


def test_a_node_that_leaves_ends_its_streams_at_once_and_takes_no_new_ones(fresh_database_url):
    async def scenario():
        async with serving(fresh_database_url, stream_heartbeat_s=30) as node:
            consumer = Consumer()
            async with following(consumer, node.url):
                await consumer.begun()
                node.reasons.append("the node drains")
                await consumer.until(lambda: consumer.ended, 10)  # a heartbeat takes longer
            assert "the node drains" in consumer.comments
            late = Consumer()
            await late.connect(node.url)
            assert (late.status, "the node drains" in late.comments[0]) == (503, True)
            node.reasons.clear()

            async def accepts():
                return not node.tail.closed

            await eventually(accepts)
            async with following(consumer, node.url, topic="data_center"):
                await add_data_centers(fresh_database_url, ["after"])
                await consumer.until(lambda: consumer.names() == ["after"])

    run(scenario())


def test_a_client_of_a_killed_node_goes_on_at_another_one(fresh_database_url):
    """Nothing lost, nothing twice, under writers that stay open for a while or take it back."""

    async def scenario():
        async with (
            node_process(fresh_database_url, "a") as a,
            node_process(fresh_database_url, "b") as b,
            serving(fresh_database_url),  # adds the user
        ):
            consumer, wanted, dice = Consumer(), [], Random(1)

            async def write(writer: int) -> None:
                async with await psycopg.AsyncConnection.connect(fresh_database_url) as session:
                    for number in range(60):
                        name = f"{writer}-{number:03d}"
                        await session.execute(INSERT, [name])
                        await asyncio.sleep(dice.random() * 0.05)
                        if dice.random() < 0.2:
                            await session.rollback()
                        else:
                            await session.commit()
                            wanted.append(name)

            async with asyncio.TaskGroup() as group:
                async with following_until_broken(consumer, a.url, topic="data_center"):
                    await consumer.begun()
                    writers = [group.create_task(write(writer)) for writer in range(6)]
                    await consumer.until(lambda: len(consumer.changes) > 40)
                    a.kill()
                while not all(writer.done() for writer in writers):  # come and go
                    before = len(consumer.changes)
                    async with following(consumer, b.url, topic="data_center"):
                        await consumer.until(
                            lambda before=before: (
                                len(consumer.changes) > before + 20
                                or len(consumer.changes) >= len(wanted)
                            )
                        )
            async with following(consumer, b.url, topic="data_center"):
                await consumer.until(lambda: len(consumer.changes) >= len(wanted))
            assert sorted(consumer.names()) == sorted(wanted)
            for writer in range(6):
                of_one = [name for name in consumer.names() if name.startswith(f"{writer}-")]
                assert of_one == sorted(of_one)

    run(scenario())


def test_the_command_line_shows_what_is_kept_and_where_to_go_on(fresh_database_url, tmp_path):
    password = tmp_path / "password"
    password.write_text(f"{PASSWORD}\n")

    async def called(url: str, *words: str) -> list[dict]:
        options = ["--url", url, "--password-file", str(password), "--topic", "data_center"]
        result = await asyncio.to_thread(
            CliRunner().invoke, command, [*options, *words], catch_exceptions=False
        )
        assert result.exit_code == 0, result.output
        return [json.loads(line) for line in result.stdout.splitlines() if "--json" in words]

    async def scenario():
        async with serving(fresh_database_url) as node:
            await add_data_centers(fresh_database_url, names(0, 3))
            told = await called(node.url, "--json")
            assert [each["row"]["name"] for each in told] == names(0, 3)
            await add_data_centers(fresh_database_url, names(3, 5))
            for number, each in enumerate(told):
                rest = await called(node.url, "--json", "--since", each["cursor"])
                assert [each["row"]["name"] for each in rest] == names(number + 1, 5)
            await called(node.url)
            with pytest.raises(Invalid, match="There is no topic app_user"):
                await called(node.url, "--topic", "app_user")
            password.write_text("wrong")
            with pytest.raises(Unauthorized):
                await called(node.url)

    command = typer.Typer()
    command.command()(changes)
    run(scenario())


def test_the_command_lines_client_goes_on_at_another_node(fresh_database_url):
    async def scenario():
        async with node_process(fresh_database_url, "a") as a, serving(fresh_database_url) as b:
            client = Changes([a.url, b.url], USER, PASSWORD)
            got: list[str] = []

            async def follow() -> None:
                wanted = Wanted("now", ("data_center",))
                async with aclosing(client.events(wanted)) as events:
                    async for event in events:
                        if event.kind == "change":
                            got.append(event.data["row"]["name"])
                        if len(got) == 20:
                            return

            async with asyncio.TaskGroup() as group:
                group.create_task(follow())

                async def begun() -> bool:
                    return bool(client.cursor)

                await eventually(begun)
                await add_data_centers(fresh_database_url, names(0, 10))
                a.kill()
                await add_data_centers(fresh_database_url, names(10, 20))
            assert got == names(0, 20)

    run(scenario())


def test_a_setting_is_in_force_on_another_node_without_a_restart(fresh_database_url):
    async def scenario():
        async with (
            node_process(fresh_database_url, "a") as a,
            node_process(fresh_database_url, "b") as b,
            serving(fresh_database_url),  # adds the user
            httpx.AsyncClient(
                headers={"Authorization": BASIC}, timeout=PATIENCE_S, trust_env=False
            ) as client,
        ):
            settings = "/api/v1/settings"

            async def status() -> int:
                body = {"value": 3, "reason": "x" * 1500}
                path = f"{b.url}{settings}/nothing"
                return (await client.put(path, json=body)).status_code

            async def judged() -> int | None:
                code = await status()
                return None if code == 503 else code  # a barrier may take long on a busy machine

            assert (
                await eventually(judged, PATIENCE_S) == 400
            )  # the reason is too long, the body is not
            change = f"{a.url}{settings}/request_body_limit_bytes"
            assert (await client.put(change, json={"value": 1024})).status_code == 200

            async def in_force() -> bool:
                return await status() == 413

            await eventually(in_force, PATIENCE_S)

    run(scenario())


@pytest.mark.parametrize("how", ["drain", "stop"])
def test_a_real_node_that_leaves_ends_its_streams_promptly(fresh_database_url, how):
    async def scenario():
        async with (
            serving(fresh_database_url) as other,  # adds the user
            node_process(fresh_database_url, "a") as a,
            node_process(fresh_database_url, "b") as b,
        ):
            consumer = Consumer()
            async with following(consumer, a.url, topic="data_center"):
                await consumer.begun()
                if how == "drain":
                    await orders.drain(other.api.db, "a")
                else:
                    a.process.terminate()
                await consumer.until(lambda: consumer.ended, 15)  # a heartbeat takes longer
            assert f"the node {how}s" in consumer.comments
            await add_data_centers(fresh_database_url, names(0, 2))
            async with following(consumer, b.url, topic="data_center"):
                await consumer.until(lambda: len(consumer.changes) == 2)

    run(scenario())
