"""A database that went back to an earlier point: noticed by what hosts remember, and mended."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from cluster.conftest import until
from cluster.test_migration import program
from cluster.test_start import ready
from integration.engines import simulated
from typer.testing import CliRunner

from engine_pg.api.accounts import users
from engine_pg.api.accounts.passwords import Passwords
from engine_pg.cli import db as cli
from engine_pg.db.database import Database
from engine_pg.demo.furnish import furnish
from engine_pg.demo.rest import Client, element, named
from engine_pg.demo.state import free_ports
from engine_pg.settings import PREFIX

USER, PASSWORD = "admin@internal", "correct horse"
BOUND_S = 60.0
TOLD = """
select description from (select code, description from event
                         union all select code, description from event_inbox) as e where code = %s
"""
BOOKS = "select name, status, host_id is not null from vm order by name"
OPEN = "select count(*) from command where ended_at is null"
EPOCH = "select max(epoch_id) from cluster_epoch"


def environment(url) -> dict[str, str]:
    others = {name: text for name, text in os.environ.items() if not name.startswith(PREFIX)}
    return others | {"ENGINE_DATABASE_URL": url, "ENGINE_LEASE_TTL_S": "2"}


def call(url, monkeypatch, *words: str) -> str:
    """Call `engine-pg db` in this process: another one is slow to start."""
    monkeypatch.setenv("ENGINE_DATABASE_URL", url)
    result = CliRunner().invoke(cli.app, list(words))
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


async def with_a_user(url) -> None:
    hashed = await Passwords().hash(PASSWORD)  # no transaction waits for that
    async with Database(url) as db, db.write() as tx:
        await users.add(tx, USER, hashed)


@contextmanager
def node(url, log: Path):
    """Run a node; yield its address. It ends in order."""
    port = free_ports(1)
    own = {"ENGINE_NODE": "node-1", "ENGINE_LISTEN_PORT": str(port)}
    with log.open("a") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "engine_pg", "serve"],
            env=environment(url) | own,
            stdout=output,
            stderr=output,
        )
    try:
        yield port, f"http://127.0.0.1:{port}"
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=BOUND_S)
    finally:
        process.kill()
        process.wait()


def rows(url, query, *params):
    with psycopg.connect(url) as connection:
        return connection.execute(query, params).fetchall()


def dumped(url, file: Path) -> None:
    words = [program("pg_dump"), "--format=custom", f"--file={file}", url]
    subprocess.run(words, check=True, timeout=BOUND_S)


def brought_back(postgres, url, file: Path) -> None:
    """Put the dump in the place of the database, on the same server."""
    name = urlsplit(url).path.removeprefix("/")
    with psycopg.connect(postgres.admin_url, autocommit=True) as connection:
        owner = urlsplit(url).username
        connection.execute(f"drop database {name} with (force)".encode())
        connection.execute(f"create database {name} owner {owner}".encode())
    words = [program("pg_restore"), "--no-owner", f"--dbname={url}", file]
    subprocess.run(words, check=True, timeout=BOUND_S)


class Vms:
    """VMs of the node's, through its API."""

    def __init__(self, rest: Client) -> None:
        self._rest = rest

    async def make(self, name: str) -> None:
        memory, cluster = element("memory", str(1 << 30)), named("cluster", "Default")
        template = named("template", "Blank")
        await self._rest.post(
            "/vms", element("vm", element("name", name), memory, cluster, template)
        )

    async def of(self, name: str):
        return next(vm for vm in await self._rest.get("/vms") if vm.findtext("name") == name)

    async def act(self, name: str, action: str, status: str) -> None:
        vm = await self.of(name)
        await self._rest.post(f"/vms/{vm.get('id')}/{action}", element("action"))

        async def is_so() -> bool:
            return (await self.of(name)).findtext("status") == status

        await until(is_so)


class Story:
    """What happens before the restore, and after it."""

    def __init__(self, url: str, dump: Path, host_ports: list[int], restored) -> None:
        self._url = url
        self._dump = dump
        self._host_ports = host_ports
        self._restored = restored
        self.stranger = ""

    async def before(self, port: int, address: str) -> None:
        await up(port)
        async with Client([address], USER, PASSWORD) as rest:
            await furnish(rest, host_ports=self._host_ports, vms=0, tell=lambda _: None)
            vms = Vms(rest)
            for name in ("ended", "started"):
                await vms.make(name)
            await vms.act("ended", "start", "up")
            await asyncio.to_thread(dumped, self._url, self._dump)
            await vms.act("started", "start", "up")
            await vms.act("ended", "stop", "down")
            await vms.make("stranger")
            await vms.act("stranger", "start", "up")
            self.stranger = (await vms.of("stranger")).get("id")

    async def after(self, port: int, address: str) -> None:
        await up(port)

        async def noticed() -> bool:
            return bool(await asyncio.to_thread(rows, self._url, TOLD, 9103))

        await until(noticed)
        epoch = rows(self._url, EPOCH)[0][0]
        said = await asyncio.to_thread(self._restored)
        assert re.search(rf"unknown: VM {self.stranger} runs on host-\d", said), said
        assert rows(self._url, EPOCH)[0][0] > epoch + 1000

        async def reconciled() -> bool:
            books = await asyncio.to_thread(rows, self._url, BOOKS)
            return books == [("ended", "down", False), ("started", "up", True)]

        await until(reconciled)
        async with Client([address], USER, PASSWORD) as rest:
            vms = Vms(rest)
            await vms.act("started", "stop", "down")
            await vms.act("ended", "start", "up")

    def told(self) -> None:
        """See that people were told, once."""
        assert len(rows(self._url, TOLD, 9103)) == 1
        assert "(a test)" in rows(self._url, TOLD, 9104)[0][0]
        assert self.stranger in rows(self._url, TOLD, 9105)[0][0]


async def up(port: int) -> None:
    async def is_ready() -> bool:
        return await asyncio.to_thread(ready, port)

    await until(is_ready, bound_s=150.0)


@pytest.mark.timeout(400)
def test_after_a_restore_the_hosts_are_believed_tokens_rise_and_people_are_told(
    postgres, fresh_database_url, tmp_path, monkeypatch
):
    url, log, dump = fresh_database_url, tmp_path / "log", tmp_path / "dump"
    words = ("restored", "--yes", "--reason", "a test")
    asyncio.run(with_a_user(url))
    with simulated("all") as hosts:
        ports = [port for _, port in hosts.places]
        story = Story(url, dump, ports, lambda: call(url, monkeypatch, *words))
        with node(url, log) as place:
            asyncio.run(story.before(*place))
        brought_back(postgres, url, dump)
        with node(url, log) as place:
            asyncio.run(story.after(*place))
        story.told()
        assert rows(url, OPEN) == [(0,)]
        verdict = hosts.verdict()
        assert verdict.clean, verdict.violations
