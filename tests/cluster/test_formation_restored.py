"""A formation restored to a point in time, by the very commands of docs/dba/backup.md."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.conftest import until
from cluster.test_point_in_time import LEFT, NOW, blocks
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

from engine_pg.db import migrate
from engine_pg.demo.furnish import furnish
from engine_pg.demo.rest import Client
from engine_pg.errors import Invalid
from engine_pg.formation import Formation, Plan, formation
from engine_pg.formation.asking import ask
from engine_pg.formation.autoctl import Autoctl
from engine_pg.formation.layout import include_settings
from engine_pg.formation.place import ADDRESS, MONITOR, REPLICATOR, Place
from engine_pg.formation.programs import programs
from engine_pg.formation.state import FormationState

PLAN = Plan(nodes=2)
ALWAYS = "archive_mode = always"  # what the page says of a formation, instead of `on`
QUICK = "fsync = off"


class Archived:
    """A formation with an archive of its log, looked after as the page says."""

    def __init__(self, folder: Path) -> None:
        self._archive = folder / "backup"
        self.formation = Formation(folder / "formation")
        page = blocks()
        self._words, self._backup = page[:2]
        self._restore, self._leave, self._stop, self._alone = page[3:]

    def settings(self, place: Place, name: str) -> None:
        """Have a new node archive its log, as well as what all nodes have."""
        include_settings(place, name)
        if name == MONITOR:
            return
        for folder in (self._archive, self._archive / "wal"):
            place.account.own_folder(folder)
        words = re.sub("^archive_mode = on$", ALWAYS, self._here(self._words), flags=re.MULTILINE)
        assert ALWAYS in words
        sockets = f"unix_socket_directories = '{place.sockets}'"  # as the page says
        with (place.data(name) / "postgresql.conf").open("a") as file:
            file.write(f"{words}{sockets}\n{QUICK}\n")

    def start(self) -> FormationState:
        """Start all that does not run, or is no more."""
        return self.formation.up(PLAN, lambda _: None)

    def back_up(self) -> None:
        place, (_, standby) = self.formation.place(), self._roles()
        as_replicator = {
            "PGHOST": ADDRESS,
            "PGUSER": REPLICATOR,
            "PGSSLMODE": "verify-full",
            "PGSSLROOTCERT": str(place.tls / "ca.crt"),
        }
        self._run(standby, self._backup, **as_replicator)

    def go_back(self, point: str) -> None:
        place, (primary, standby) = self.formation.place(), self._roles()
        self._run(standby, self._leave)
        asyncio.run(until(lambda: self._is_single(primary)))
        self._run(primary, self._stop)
        self._run(primary, self._restore, POINT=point)
        left = {row["name"] for row in asyncio.run(ask(place, primary, LEFT))}
        assert left <= {"recovery_target_timeline"}  # which stands among the keeper's own settings
        self._run(primary, self._alone)

    def _roles(self) -> tuple[str, str]:
        """Return who is the primary, and who is not, when all is settled."""
        state = self.start()
        assert state.primary is not None
        primary = state.primary.name
        return primary, next(each.name for each in state.nodes if each.name != primary)

    async def _is_single(self, name: str) -> bool:
        seen = await asyncio.to_thread(self.formation.state)
        at = next(each for each in seen.nodes if each.name == name)
        return at.state == at.goal == "single"

    def _here(self, text: str) -> str:
        return text.replace("/backup", str(self._archive))

    def _run(self, name: str, commands: str, **more: str) -> None:
        place = self.formation.place()
        known = {"PGDATA": place.data(name), "PGPORT": place.memory.ports[name]}
        given = (f"{key}={value}" for key, value in (known | more).items())
        autoctl = Autoctl(place, programs(), formation.here)
        done = autoctl._run(name, "/usr/bin/env", *given, "/bin/sh", "-ec", self._here(commands))
        assert done.returncode == 0, done.stdout


@pytest.fixture
def archived(roomy_folder: Path, monkeypatch) -> Iterator[Archived]:
    try:
        programs()
    except Invalid as missing:
        pytest.skip(str(missing))  # in continuous integration a skipped test is a failed one
    made = Archived(roomy_folder)
    monkeypatch.setattr(formation, "include_settings", made.settings)
    yield made
    made.formation.down(lambda _: None)


async def before(place: tuple[int, str], hosts: Hosts, back_up) -> None:
    """Make and start a VM; then, after the backup, another one."""
    port, address = place
    await up(port)
    async with Client([address], USER, PASSWORD) as rest:
        ports = [port for _, port in hosts.places]
        await furnish(rest, host_ports=ports, vms=0, tell=lambda _: None)
        vms = Vms(rest)
        await vms.make("kept")
        await vms.act("kept", "start", "up")
        await asyncio.to_thread(back_up)
        await vms.make("late")


async def beyond(place: tuple[int, str]) -> None:
    """Do what is to be lost."""
    port, address = place
    await up(port)
    async with Client([address], USER, PASSWORD) as rest:
        vms = Vms(rest)
        await vms.act("kept", "stop", "down")
        await vms.make("lost")


async def after(place: tuple[int, str], url: str) -> None:
    port, address = place
    await up(port)

    async def reconciled() -> bool:
        books = await asyncio.to_thread(rows, url, BOOKS)
        return books == [("kept", "down", False), ("late", "down", False)]

    await until(reconciled)
    async with Client([address], USER, PASSWORD) as rest:
        await Vms(rest).act("kept", "start", "up")


@pytest.mark.timeout(400)
def test_a_formation_goes_back_to_a_moment_with_one_node_and_the_other_is_made_anew(
    archived: Archived, tmp_path, monkeypatch
):
    log = tmp_path / "log"
    archived.start()
    url = archived.formation.url()
    migrate.upgrade(url)
    asyncio.run(with_a_user(url))
    monkeypatch.setenv("ENGINE_MONITOR_URL", archived.formation.monitor_url())
    with simulated("all") as hosts:
        with node(url, log) as place:
            asyncio.run(before(place, hosts, archived.back_up))
            point = rows(url, NOW)[0][0]
            asyncio.run(beyond(place))
        archived.go_back(point)
        assert archived.start().settled
        assert {name for name, *_ in rows(url, BOOKS)} == {"kept", "late"}
        epoch = rows(url, EPOCH)[0][0]
        call(url, monkeypatch, "restored", "--yes", "--reason", "a test")
        assert rows(url, EPOCH)[0][0] > epoch + 1000
        with node(url, log) as place:
            asyncio.run(after(place, url))
        assert "(a test)" in rows(url, TOLD, 9104)[0][0]
        assert hosts.verdict().clean, hosts.verdict().violations
