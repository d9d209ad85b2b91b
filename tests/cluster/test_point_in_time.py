"""A live database restored to a point in time, by the very commands of docs/dba/backup.md."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import pytest
from cluster.conftest import until
from cluster.test_restored import (
    BOOKS,
    EPOCH,
    PASSWORD,
    TOLD,
    USER,
    Vms,
    call,
    node,
    rows,
    up,
    with_a_user,
)
from integration.engines import Hosts, simulated
from replication import Server

from engine_pg.db import migrate
from engine_pg.demo.furnish import furnish
from engine_pg.demo.rest import Client, element

PAGE = Path(__file__).resolve().parents[2] / "docs/dba/backup.md"
BLOCK = re.compile(r"^```(ini|sh)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SLOW_S = 3.0
NOW = "select clock_timestamp()::text"
OPEN = "select state from command where subject_id = %s and ended_at is null"
STARTED = """
select state, error_kind from command
 where subject_id = %s and name = 'start_vm' order by submitted_at
"""
LEFT = """
select name from pg_file_settings where name like 'recovery_target%%' or name = 'restore_command'
"""


def blocks() -> list[str]:
    """Return the page's settings, then its commands, in their order."""
    (kind, settings), *commands = BLOCK.findall(PAGE.read_text())
    assert kind == "ini"
    return [settings, *(text for _, text in commands)]


class Archived(Server):
    """A server with an archive of its log, looked after as the page says."""

    def __init__(self, folder: Path) -> None:
        given = os.environ.get("ENGINE_TEST_PG_BIN")
        super().__init__(folder, binaries=Path(given) if given else None)
        self._archive = folder / "backup"
        self._words, self._backup, self._stop, self._restore, *_ = blocks()

    def start(self) -> None:
        account = self._site.account
        for place in (self._archive, self._archive / "wal"):
            account.own_folder(place)
        os.chown(self._site.home, account.uid, account.gid)  # as a distribution has it
        told = re.findall(r"^(\w+) = (.*)$", self._here(self._words), re.MULTILINE)
        self.configure(**{name: value.strip("'") for name, value in told})
        self.embedded.start()

    def back_up(self) -> None:
        self._run(self._backup)

    def go_back(self, point: str) -> None:
        self._run(self._stop)
        self._run(self._restore, POINT=point)

    def _here(self, text: str) -> str:
        return text.replace("/backup", str(self._archive))

    def _run(self, commands: str, **more: str) -> None:
        site = self._site
        programs = self.embedded._programs(site).folder
        environment = {
            "PATH": f"{programs}:/usr/bin:/bin",
            "PGDATA": str(site.data),
            "PGHOST": "127.0.0.1",
            "PGPORT": str(site.memory.port),
            "PGUSER": "postgres",
            "PGPASSWORD": site.memory.passwords["postgres"],
        }
        words = ("/bin/sh", "-ec", self._here(commands))
        done = site.account.run(*words, env=environment | more)
        assert done.returncode == 0, done.stdout


class Story:
    """What happens before the point, after it, and after the restore."""

    def __init__(self, server: Archived, hosts: Hosts) -> None:
        self._server = server
        self._url = server.embedded.url()
        self._hosts = hosts
        self._ids: dict[str, str] = {}
        self.point = ""

    async def before(self, port: int, address: str) -> None:
        await up(port)
        async with Client([address], USER, PASSWORD) as rest:
            ports = [port for _, port in self._hosts.places]
            await furnish(rest, host_ports=ports, vms=0, tell=lambda _: None)
            vms = Vms(rest)
            await vms.make("kept")
            await asyncio.to_thread(self._server.back_up)
            for name in ("late", "under-way"):
                await vms.make(name)
            await vms.act("kept", "start", "up")
            await self._the_point(rest, vms)
            await vms.act("under-way", "stop", "down")
            await vms.act("late", "start", "up")
            await vms.make("stranger")
            await vms.act("stranger", "start", "up")
            for name in ("kept", "late", "under-way", "stranger"):
                self._ids[name] = (await vms.of(name)).get("id")

    async def _the_point(self, rest: Client, vms: Vms) -> None:
        """Take a moment at which the start of a VM was acknowledged and is not over."""
        for number in (1, 2):
            await self._hosts.fault(
                number, "delay", verbs=["VM.create"], seconds=SLOW_S, when="before"
            )
        vm = (await vms.of("under-way")).get("id")
        await rest.post(f"/vms/{vm}/start", element("action"))
        self.point = rows(self._url, NOW)[0][0]
        assert len(rows(self._url, OPEN, vm)) == 1
        for number in (1, 2):
            await self._hosts.fault(number, "heal")

        async def is_up() -> bool:
            return (await vms.of("under-way")).findtext("status") == "up"

        await until(is_up)

    def mend(self, monkeypatch) -> None:
        """See what the restore came to, then do what is to be done before nodes start."""
        names = {name for name, *_ in rows(self._url, BOOKS)}
        assert names == {"kept", "late", "under-way"}
        assert rows(self._url, STARTED, self._ids["kept"]) == [("succeeded", None)]
        assert len(rows(self._url, OPEN, self._ids["under-way"])) == 1
        assert self._server.ask(LEFT) == []
        epoch = rows(self._url, EPOCH)[0][0]
        said = call(self._url, monkeypatch, "restored", "--yes", "--reason", "a test")
        assert f"unknown: VM {self._ids['stranger']} runs on" in said
        assert ": 1 open commands ended with an unknown outcome" in said
        assert rows(self._url, EPOCH)[0][0] > epoch + 1000

    async def after(self, port: int, address: str) -> None:
        await up(port)

        async def reconciled() -> bool:
            books = await asyncio.to_thread(rows, self._url, BOOKS)
            return books == [
                ("kept", "up", True),
                ("late", "up", True),
                ("under-way", "down", False),
            ]

        await until(reconciled)
        async with Client([address], USER, PASSWORD) as rest:
            vms = Vms(rest)
            await vms.act("late", "stop", "down")
            await vms.act("under-way", "start", "up")

    def told(self) -> None:
        """See that people were told, once, and that nothing was run again by itself."""
        assert rows(self._url, TOLD, 9103) == []
        assert "(a test)" in rows(self._url, TOLD, 9104)[0][0]
        assert self._ids["stranger"] in rows(self._url, TOLD, 9105)[0][0]
        assert rows(self._url, STARTED, self._ids["under-way"]) == [
            ("unknown", "Restored"),
            ("succeeded", None),
        ]
        assert self._hosts.verdict().clean, self._hosts.verdict().violations


@pytest.mark.timeout(400)
def test_a_base_backup_and_the_archived_log_lead_back_to_a_moment_and_the_engine_goes_on_from_there(
    roomy_folder, tmp_path, monkeypatch
):
    server, log = Archived(roomy_folder), tmp_path / "log"
    try:
        server.start()
        url = server.embedded.url()
        migrate.upgrade(url)
        asyncio.run(with_a_user(url))
        with simulated("all") as hosts:
            story = Story(server, hosts)
            with node(url, log) as place:
                asyncio.run(story.before(*place))
            server.go_back(story.point)
            assert server.timeline == 2
            story.mend(monkeypatch)
            with node(url, log) as place:
                asyncio.run(story.after(*place))
            story.told()
    finally:
        server.embedded.stop("immediate")
        server.link.close()
        server.feed.close()
