"""A node that is started before its database is there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

from engine_pg.clock import boottime
from engine_pg.db.embedded import EmbeddedPostgres
from engine_pg.db.migrate import upgrade
from engine_pg.demo.state import free_ports
from engine_pg.settings import PREFIX

SERVE = [sys.executable, "-m", "engine_pg", "serve"]
WAITING = "waiting for the database"
INVALID = 2


def at(url, *, word=None, database=None):
    """Return the URL with another password, or another database."""
    parts = urlsplit(url)
    netloc = parts.netloc.replace(f":{parts.password}@", f":{word}@") if word else parts.netloc
    return parts._replace(netloc=netloc, path=f"/{database}" if database else parts.path).geturl()


@contextmanager
def serving(url, port, log: Path):
    others = {name: word for name, word in os.environ.items() if not name.startswith(PREFIX)}
    own = {"ENGINE_DATABASE_URL": url, "ENGINE_NODE": "early", "ENGINE_LISTEN_PORT": str(port)}
    with log.open("w") as output:
        process = subprocess.Popen(SERVE, env=others | own, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until(happened, bound_s=30.0):
    deadline = boottime() + bound_s
    while not happened():
        assert boottime() < deadline, "it did not happen in time"
        time.sleep(0.02)


def ready(port) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
            return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def server(roomy_tmp):
    binaries = os.environ.get("ENGINE_TEST_PG_BIN")
    server = EmbeddedPostgres(
        roomy_tmp / "late",
        binaries=Path(binaries) if binaries else None,
        settings={"fsync": "off"},
    )
    server.start()
    try:
        upgrade(server.url())
        yield server
    finally:
        server.stop("immediate")


def test_a_node_waits_for_a_database_that_is_not_up_yet_and_says_so(server, tmp_path):
    port, log = free_ports(1), tmp_path / "log"
    server.stop("immediate")  # so that it recovers first
    with serving(server.url(), port, log) as process:
        until(lambda: WAITING in log.read_text())
        server.start()
        until(lambda: ready(port))
        assert process.poll() is None


def test_a_node_that_waits_for_its_database_stops_when_told(server, tmp_path):
    port, log = free_ports(1), tmp_path / "log"
    nowhere = server.url().replace(f":{urlsplit(server.url()).port}/", f":{port}/")
    with serving(nowhere, port, log) as process:
        until(lambda: WAITING in log.read_text())
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"word": "wrong"}, "password authentication failed"),
        ({"database": "nowhere"}, 'database "nowhere" does not exist'),
        ({"database": "template1"}, "db upgrade"),
    ],
)
def test_a_node_with_a_wrong_address_ends_at_once_and_says_why(server, tmp_path, wrong, told):
    port, log = free_ports(1), tmp_path / "log"
    with serving(at(server.url(), **wrong), port, log) as process:
        assert process.wait(timeout=20) == INVALID
    assert told in log.read_text()
    assert WAITING not in log.read_text()
