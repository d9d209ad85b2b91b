"""The version before works on through this one's migrations, and beside its nodes, under load."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

import httpx
import psycopg
import pytest
from cluster.conftest import until
from cluster.test_restored import PASSWORD, USER, with_a_user
from integration.engines import simulated
from integration.roled import Roles, roled

from engine_pg.db import migrate
from engine_pg.demo.furnish import furnish
from engine_pg.demo.rest import Client, Heard, element, named
from engine_pg.demo.state import free_ports
from engine_pg.ids import new_id
from engine_pg.settings import PREFIX

ROOT = Path(__file__).resolve().parents[2]
NAMED = ROOT / "alembic/previous_version"
TTL_S = 2.0
BOUND_S = 60.0
CLIENTS = 3
ROUNDS = 2
OPEN = "select count(*) from command where ended_at is null or state <> 'succeeded'"
VERSIONS = "select count(distinct epoch_id), count(*) from member where state = 'live'"


def git(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.fixture(scope="module")
def previous(tmp_path_factory) -> Iterator[Path]:
    """Yield a folder with the code of the version before."""
    commit = next(line for line in NAMED.read_text().split("\n") if line and line[0] != "#")
    if git("cat-file", "-e", f"{commit}^{{commit}}").returncode:
        pytest.fail(
            f"{NAMED.name} names the commit {commit}, which this clone does not have: fetch the"
            " whole history (git fetch --unshallow), for its code is run here"
        )
    folder = tmp_path_factory.mktemp("previous") / "engine_pg"
    made = git("worktree", "add", "--detach", str(folder), commit)
    assert made.returncode == 0, made.stderr
    try:
        yield folder
    finally:
        git("worktree", "remove", "--force", str(folder))


class Processes:
    """Processes of a version; all are gone afterwards."""

    def __init__(self, database: Roles, logs: Path) -> None:
        self.urls: list[str] = []
        self._database = database
        self._logs = logs
        self._nodes: list[subprocess.Popen[bytes]] = []

    def environment(self, code: Path, role: str) -> dict[str, str]:
        others = {name: text for name, text in os.environ.items() if not name.startswith(PREFIX)}
        own = {"ENGINE_DATABASE_URL": self._database.url(role), "PYTHONPATH": str(code)}
        return others | own | {"ENGINE_LEASE_TTL_S": str(TTL_S)}

    def call(self, code: Path, role: str, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "engine_pg", *words],
            cwd=code,
            env=self.environment(code, role),
            capture_output=True,
            text=True,
            check=False,
            timeout=BOUND_S,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def serve(self, code: Path, name: str) -> subprocess.Popen[bytes]:
        port = free_ports(1)
        own = {"ENGINE_NODE": name, "ENGINE_LISTEN_PORT": str(port)}
        with (self._logs / name).open("w") as log:
            node = subprocess.Popen(
                [sys.executable, "-m", "engine_pg", "serve"],
                cwd=code,
                env=self.environment(code, "runtime") | own,
                stdout=log,
                stderr=log,
            )
        self._nodes.append(node)
        self.urls.append(f"http://127.0.0.1:{port}")
        return node

    def end(self) -> None:
        for node in self._nodes:
            node.kill()
            node.wait()


async def ready(urls) -> bool:
    async with httpx.AsyncClient(trust_env=False, timeout=2.0) as http:
        try:
            answers = [(await http.get(f"{url}/readyz")).status_code for url in urls]
        except httpx.TransportError:
            return False
    return answers == [HTTPStatus.OK] * len(urls)


class Traffic:
    """Clients that make, start, stop and remove VMs through the nodes, and what they heard."""

    def __init__(self, urls) -> None:
        self.urls = urls
        self.failed: list[Heard] = []
        self.rounds = 0
        self._enough = False

    def hear(self, heard: Heard) -> None:
        if heard.status == 0 or heard.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self.failed.append(heard)

    async def client(self, number: int) -> None:
        async with Client(self.urls, USER, PASSWORD, tell=self.hear) as rest:
            while not self._enough:
                rest._urls = [self.urls[(self.rounds + number) % len(self.urls)]]
                vm = element(
                    "vm",
                    element("name", f"vm-{new_id()}"),
                    element("memory", str(1 << 30)),
                    named("cluster", "Default"),
                    named("template", "Blank"),
                )
                made = await rest.post("/vms", vm, key=str(new_id()))
                path = f"/vms/{made.get('id')}"
                for action, status in (("start", "up"), ("stop", "down")):
                    await rest.post(f"{path}/{action}", element("action"), key=str(new_id()))
                    await self._until(rest, path, status)
                await rest.delete(path, key=str(new_id()))
                self.rounds += 1

    async def _until(self, rest: Client, path: str, status: str) -> None:
        async def is_so() -> bool:
            return (await rest.get(path)).findtext("status") == status

        await until(is_so)

    async def more(self) -> None:
        """Wait until each client has done some rounds more."""
        goal = self.rounds + ROUNDS * CLIENTS

        async def done() -> bool:
            return self.rounds >= goal

        await until(done)

    def stop(self) -> None:
        self._enough = True


@contextmanager
def processes(postgres, logs: Path) -> Iterator[tuple[Roles, Processes]]:
    with roled(postgres) as database:
        made = Processes(database, logs)
        try:
            yield database, made
        finally:
            made.end()


@pytest.mark.timeout(400)
def test_the_schema_and_the_nodes_are_upgraded_under_load_and_no_request_fails(
    postgres, previous, tmp_path
):
    with processes(postgres, tmp_path) as (database, run), simulated("all") as hosts:
        run.call(previous, "owner", "db", "upgrade")
        asyncio.run(with_a_user(database.url("runtime")))
        old = run.serve(previous, "old-1")

        async def story() -> None:
            await until(lambda: ready(run.urls))
            async with Client(run.urls, USER, PASSWORD) as rest:
                ports = [port for _, port in hosts.places]
                await furnish(rest, host_ports=ports, vms=0, tell=lambda _: None)
            traffic = Traffic(list(run.urls))
            async with asyncio.TaskGroup() as group:
                for number in range(CLIENTS):
                    group.create_task(traffic.client(number))
                await traffic.more()
                before = migrate.current(database.url("owner"))
                await asyncio.to_thread(migrate.upgrade, database.url("owner"))
                assert migrate.current(database.url("owner")) != before
                await traffic.more()
                run.serve(ROOT, "new-1")
                await until(lambda: ready(run.urls[1:]))
                traffic.urls = list(run.urls)
                await traffic.more()
                assert old.poll() is None
                traffic.stop()
            assert traffic.failed == []

        asyncio.run(story())
        with psycopg.connect(database.admin_url) as connection:
            assert connection.execute(OPEN).fetchone() == (0,)
            assert connection.execute(VERSIONS).fetchone() == (1, 2)
        assert hosts.verdict().clean
