"""A real pooler in the path: what hands out sessions by the transaction gives LISTEN to nobody."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from contextlib import AsyncExitStack, aclosing, contextmanager, suppress
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
from integration.feeding import TABLES, Reader, connect
from integration.nodes import eventually, node, run
from integration.streams import started_process

from engine_pg.clock import boottime
from engine_pg.cluster.feed import Feed
from engine_pg.cluster.locks import LockBusy, LockKey, Wanted
from engine_pg.db.database import Database
from engine_pg.db.listener import Doorbells
from engine_pg.errors import Invalid
from engine_pg.supervisor import Background

KEY = Wanted(LockKey("test", "pooled"))
PROGRAM = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
CONFIGURATION = """
[databases]
* = host={host} port={port} user={user} password={password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
ignore_startup_parameters = options
"""

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs pgbouncer")


@pytest.fixture
def url(fresh_database_url):
    with psycopg.connect(fresh_database_url) as connection:
        connection.execute(TABLES)
    return fresh_database_url


@contextmanager
def pooled(folder, url, mode):
    """Run pgbouncer before a database; yield the address behind it."""
    parts = urlsplit(url)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        own_port = free.getsockname()[1]
    folder.mkdir(mode=0o755)
    file = folder / "pgbouncer.ini"
    file.write_text(
        CONFIGURATION.format(
            host=parts.hostname,
            port=parts.port,
            user=parts.username,
            password=parts.password or "",
            own_port=own_port,
            mode=mode,
        )
    )
    as_somebody = ["-u", "nobody"] if os.geteuid() == 0 else []
    with subprocess.Popen([PROGRAM, "-q", *as_somebody, file]) as process:
        try:
            pooled_url = parts._replace(netloc=f"{parts.username}@127.0.0.1:{own_port}").geturl()
            wait_for(pooled_url, process)
            yield pooled_url
        finally:
            process.kill()


def wait_for(url, process) -> None:
    deadline = boottime() + 10
    while boottime() < deadline and process.poll() is None:
        with suppress(psycopg.Error), psycopg.connect(url):
            return
    raise AssertionError("the pooler does not let anybody through")


def test_a_transaction_pooler_in_the_path_is_found_reported_and_lived_with(
    url, roomy_folder, caplog
):
    async def story(pooled_url):
        deaf = []
        bells = Doorbells(pooled_url, probe_s=0.3, on_deaf=lambda: deaf.append(1))
        async with (
            Database(pooled_url, pool_max=2) as db,
            await connect(url) as psql,
            Background() as background,
        ):
            background.start(bells.run(), name="doorbells")

            async def is_found() -> bool:
                return bells.deaf and len(deaf) >= 2

            await eventually(is_found)
            assert caplog.text.count("Is there a transaction pooler in the path?") == 1
            reader = Reader(Feed(db, bells, poll_s=0.2))
            await reader.copy()
            async with aclosing(reader.feed.follow(reader.cursor)) as following:
                for name in ("a", "b"):
                    await psql.execute("insert into account values (%s)", [name])
                    while name not in reader.rows:
                        reader.take(await anext(following))

    with pooled(roomy_folder, url, "transaction") as pooled_url:
        run(story(pooled_url))


@pytest.mark.parametrize("neighbours", [0, 3])
def test_a_transaction_pooler_is_no_way_for_a_member_which_says_so(
    fresh_database_url, roomy_folder, neighbours
):
    """Whoever else the pooler serves at that time: sessions of theirs may lie ready."""

    async def story(pooled_url):
        async with AsyncExitStack() as stack:
            for _ in range(neighbours):
                await stack.enter_async_context(await connect(pooled_url))
            with pytest.raises(Invalid, match=r"by the transaction, .* the server's own address"):
                await stack.enter_async_context(node(pooled_url, "a"))
        async with node(fresh_database_url, "b") as b:
            assert [row["node"] for row in await b.rows("select node from member")] == ["b"]

    with pooled(roomy_folder, fresh_database_url, "transaction") as pooled_url:
        run(story(pooled_url))


def test_a_node_behind_a_transaction_pooler_tells_why_it_is_not_ready(
    fresh_database_url, roomy_folder
):
    async def story(pooled_url):
        async with (
            started_process(pooled_url, "a") as one,
            httpx.AsyncClient(trust_env=False) as client,
        ):

            async def tells() -> bool:
                with suppress(httpx.TransportError):
                    answer = await client.get(f"{one.url}/readyz")
                    return answer.status_code == 503 and "by the transaction" in answer.text
                return False

            await eventually(tells, 60)

    with pooled(roomy_folder, fresh_database_url, "transaction") as pooled_url:
        run(story(pooled_url))


def test_members_behind_a_session_pooler_exclude_each_other(fresh_database_url, roomy_folder):
    async def story(pooled_url):
        async with node(pooled_url, "a") as a, node(pooled_url, "b") as b:
            hold = await a.locks.acquire(KEY)
            with pytest.raises(LockBusy, match="exclusive by a"):
                await b.locks.acquire(KEY)
            a.locks.release(hold)
            await b.locks.acquire(KEY, wait_s=5)
            assert a.session.measures.resumes == b.session.measures.resumes == 0

    with pooled(roomy_folder, fresh_database_url, "session") as pooled_url:
        run(story(pooled_url))


def test_a_session_pooler_in_the_path_is_no_matter(url, roomy_folder, caplog):
    async def story(pooled_url):
        bells = Doorbells(pooled_url, probe_s=0.2)
        bell = bells.bell("x")
        async with await connect(url) as psql, Background() as background:
            background.start(bells.run(), name="doorbells")
            assert await bell.wait(10)
            for _ in range(3):
                await psql.execute("select pg_notify(cluster_channel(), 'x')")
                assert await bell.wait(10)
            probes = {bells._probe}

            async def several_were_judged() -> bool:
                probes.add(bells._probe)
                return len(probes) > 4

            await eventually(several_were_judged)
            assert not bells.deaf

    with pooled(roomy_folder, url, "session") as pooled_url:
        run(story(pooled_url))
    assert "pooler" not in caplog.text
