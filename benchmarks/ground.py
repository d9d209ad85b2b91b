"""Where benchmarks run: a migrated database of their own, on a server that really writes.

ENGINE_DATABASE_URL names the server (its user must be allowed to create databases); else one is
started for as long as it takes, with the settings that `engine-pg up` gives its own.
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


@contextmanager
def database() -> Generator[str]:
    """Yield the address of a fresh, migrated database."""
    with _server() as admin_url:
        name = f"benchmark_{secrets.token_hex(4)}"
        with psycopg.connect(admin_url, autocommit=True) as admin:
            admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
            try:
                url = urlsplit(admin_url)._replace(path=f"/{name}").geturl()
                upgrade(url)
                yield url
            finally:
                admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@contextmanager
def _server() -> Generator[str]:
    if given := os.environ.get("ENGINE_DATABASE_URL"):
        yield libpq_url(given)
        return
    folder = Path(tempfile.mkdtemp(prefix="engine-pg-benchmark-"))
    folder.chmod(0o711)  # the server's account must be able to enter
    server = EmbeddedPostgres(folder / "postgres")
    try:
        server.start()
        yield server.url("postgres", "postgres")
    finally:
        server.stop("immediate")
        shutil.rmtree(folder, ignore_errors=True)


def machine(url: str) -> dict[str, Any]:
    """Return what the numbers depend on; refuses a server whose commits are not durable."""
    opened = psycopg.Connection[DictRow].connect(url, autocommit=True, row_factory=dict_row)
    with opened as connection:
        server = connection.execute(DURABILITY).fetchone()
        assert server is not None
        if server["fsync"] != "on" or server["synchronous_commit"] == "off":
            raise Invalid("the server's commits are not durable: nothing to compare with")
        commits_s = [_took_s(connection) for _ in range(_COMMITS)]
    return {
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "commit_ms": round(1000 * statistics.median(commits_s), 3),
        **server,
    }


def _took_s(connection: psycopg.Connection[Any]) -> float:
    began = boottime()
    connection.execute(COMMIT)
    return boottime() - began
