"""Where benchmarks run: migrated databases of their own, on a server that really writes.

ENGINE_DATABASE_URL names the server (its user must be allowed to create databases); else one is
started for as long as it takes, with the settings that `engine-pg up` gives its own. Only that one
can be crashed, and only on its machine can its processes be looked at.
"""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import statistics
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import psycopg
from psycopg import sql
from psycopg.rows import DictRow, dict_row

from engine_pg.clock import boottime
from engine_pg.db.embedded import EmbeddedPostgres
from engine_pg.db.migrate import upgrade
from engine_pg.db.urls import libpq_url
from engine_pg.errors import Invalid

DURABILITY: Final = """
select current_setting('server_version') as postgresql, current_setting('fsync') as fsync,
       current_setting('synchronous_commit') as synchronous_commit
"""
COMMIT: Final = "select pg_logical_emit_message(true, 'benchmark', 'a commit')"
_COMMITS: Final = 100


class Missing(Exception):
    """Something cannot be measured here; the text says what is missing and how to get it."""


@dataclass(frozen=True, slots=True)
class Ground:
    """A server, a migrated database to clone, and a folder for what else is started."""

    admin_url: str
    template: str
    folder: Path
    server: EmbeddedPostgres | None  # None: somebody else's, given by ENGINE_DATABASE_URL

    @contextmanager
    def database(self) -> Generator[str]:
        """Yield the address of a fresh, migrated database."""
        with _database(self.admin_url, self.template) as name:
            yield _address(self.admin_url, name)


@contextmanager
def ground() -> Generator[Ground]:
    """Yield a server to measure on."""
    folder = Path(tempfile.mkdtemp(prefix="engine-pg-benchmark-"))
    folder.chmod(0o711)  # the server's account must be able to enter
    try:
        with _server(folder) as (admin_url, server), _database(admin_url, "template1") as template:
            upgrade(_address(admin_url, template))
            yield Ground(admin_url, template, folder, server)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _server(folder: Path) -> Generator[tuple[str, EmbeddedPostgres | None]]:
    if given := os.environ.get("ENGINE_DATABASE_URL"):
        yield libpq_url(given), None
        return
    server = EmbeddedPostgres(folder / "postgres")
    try:
        server.start()
        yield server.url("postgres", "postgres"), server
    finally:
        server.stop("immediate")


@contextmanager
def _database(admin_url: str, template: str) -> Generator[str]:
    name = f"benchmark_{secrets.token_hex(4)}"
    create = sql.SQL("create database {} template {}")
    drop = sql.SQL("drop database {} with (force)")
    with psycopg.connect(admin_url, autocommit=True) as admin:
        admin.execute(create.format(sql.Identifier(name), sql.Identifier(template)))
    try:
        yield name
    finally:
        with psycopg.connect(admin_url, autocommit=True) as admin:
            admin.execute(drop.format(sql.Identifier(name)))


def _address(admin_url: str, name: str) -> str:
    return urlsplit(admin_url)._replace(path=f"/{name}").geturl()


def machine(url: str) -> dict[str, Any]:
    """Return what the numbers depend on; refuses a server whose commits are not durable."""
    opened = psycopg.Connection[DictRow].connect(url, autocommit=True, row_factory=dict_row)
    with opened as connection:
        server = connection.execute(DURABILITY).fetchone()
        assert server is not None
        if server["fsync"] != "on" or server["synchronous_commit"] == "off":
            raise Invalid("the server's commits are not durable: nothing to compare with")
        commits_s = [_took_s(connection) for _ in range(_COMMITS)]
    return host() | {"commit_ms": round(1000 * statistics.median(commits_s), 3), **server}


def host() -> dict[str, Any]:
    """Return what numbers depend on, whatever server they are of."""
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "processors": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")


def _took_s(connection: psycopg.Connection[Any]) -> float:
    began = boottime()
    connection.execute(COMMIT)
    return boottime() - began
