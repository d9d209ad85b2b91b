"""PostgreSQL for every test that asks: one server per run, one migrated database per module.

ENGINE_DATABASE_URL     use that server; its user must be allowed to create databases
ENGINE_TEST_PG_BIN      start the server from this folder of programs, e.g. of another version
ENGINE_CI=1             a skipped test is a failed one
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg
import pytest
from hypothesis import settings
from lanes import pytest_collection_modifyitems, pytest_configure, pytest_xdist_make_scheduler
from psycopg import sql
from replication import SETTLE_SEQUENCES

from engine_pg.db.embedded import EmbeddedPostgres

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

__all__ = [  # hooks, for pytest to find
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_xdist_make_scheduler",
]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as beside a script; children inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("any machine", deadline=None)  # how long an example takes is chance
settings.load_profile("any machine")

_NO_SKIPS = os.environ.get("ENGINE_CI") == "1"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fsync", action="store_true", help="let the test server write durably")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if _NO_SKIPS and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which ENGINE_CI=1 forbids: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if _NO_SKIPS and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped, which ENGINE_CI=1 forbids: {report.longrepr}"
    return report


@dataclass(frozen=True)
class PostgresServer:
    """A server on which tests create and drop databases."""

    admin_url: str
    embedded: EmbeddedPostgres | None  # None: somebody else's, given by ENGINE_DATABASE_URL

    def url(self, database: str) -> str:
        if self.embedded:
            return self.embedded.url(database)
        return urlsplit(self.admin_url)._replace(path=f"/{database}").geturl()

    @contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """Create a database, yield its address, drop it."""
        name = f"test_{secrets.token_hex(6)}"
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            words = (name, "engine" if self.embedded else connection.info.user, template)
            create = sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {}")
            connection.execute(create.format(*map(sql.Identifier, words)))
        try:
            yield self.url(name)
        finally:
            with psycopg.connect(self.admin_url, autocommit=True) as connection:
                drop = sql.SQL("DROP DATABASE {} WITH (FORCE)")
                connection.execute(drop.format(sql.Identifier(name)))


@pytest.fixture(scope="session")
def roomy_tmp() -> Iterator[Path]:
    """Yield a folder that the server's account can enter, as root's `tmp_path` is not."""
    folder = Path(tempfile.mkdtemp(prefix="engine-pg-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def roomy_folder(roomy_tmp: Path) -> Path:
    """Return the path of a folder there that nobody has used."""
    return roomy_tmp / secrets.token_hex(4)


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest, roomy_tmp: Path) -> Iterator[PostgresServer]:
    """Yield the run's PostgreSQL server."""
    if given := os.environ.get("ENGINE_DATABASE_URL"):
        yield PostgresServer(given, None)
        return
    binaries = os.environ.get("ENGINE_TEST_PG_BIN")
    server = EmbeddedPostgres(
        roomy_tmp / "postgres",
        binaries=Path(binaries) if binaries else None,
        settings={"fsync": "on" if request.config.getoption("--fsync") else "off"},
    )
    try:
        server.start()
        yield PostgresServer(server.url("postgres", "postgres"), server)
    finally:
        server.stop("immediate")


@pytest.fixture(scope="session")
def template_database(postgres: PostgresServer) -> Iterator[str]:
    """Yield the name of a database that was migrated once, to be cloned."""
    from engine_pg.db.migrate import upgrade

    with postgres.database() as url:
        upgrade(url)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(SETTLE_SEQUENCES)
        yield urlsplit(url).path.removeprefix("/")


@pytest.fixture(scope="module")
def database_url(postgres: PostgresServer, template_database: str) -> Iterator[str]:
    """Yield the address of a migrated database that the tests of one module share."""
    with postgres.database(template_database) as url:
        yield url


@pytest.fixture
def fresh_database_url(postgres: PostgresServer, template_database: str) -> Iterator[str]:
    """Yield the address of a migrated database that nobody has used."""
    with postgres.database(template_database) as url:
        yield url


@pytest.fixture
def empty_database_url(postgres: PostgresServer) -> Iterator[str]:
    """Yield the address of a database without a schema."""
    with postgres.database() as url:
        yield url
