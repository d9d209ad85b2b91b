"""Two servers for the tests of failover, one pair for a run; members that poll for nothing."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from links import Link
from psycopg import sql
from replication import SETTLE_SEQUENCES, Pair
from typer.testing import CliRunner

from engine_pg.cluster import membership

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import typer


@dataclass(frozen=True)
class Replicated:
    """A pair of servers that stream, and a migrated database on them that nobody has used."""

    pair: Pair
    database: str

    @property
    def url(self) -> str:
        return self.pair.url(self.database)

    def url_of(self, *links: Link, attrs: str | None = "read-write") -> str:
        return self.pair.url_of(*links, database=self.database, attrs=attrs)

    @contextmanager
    def private_link(self) -> Iterator[tuple[Link, str]]:
        """Yield one more link to the present primary, and the address of the database behind it."""
        link = Link(self.pair.primary.link.target)
        try:
            yield link, self.url_of(link)
        finally:
            link.close()


@pytest.fixture
def no_poll(monkeypatch):
    """Let nobody poll: only a ring, or what the protocol does by itself, wakes a waiter."""
    monkeypatch.setattr(membership, "_POLL_S", 1000.0)


@pytest.fixture
def command_line(fresh_database_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return what calls a command line on a database of its own; what it raises is raised."""
    monkeypatch.setenv("ENGINE_DATABASE_URL", fresh_database_url)

    def called(app: typer.Typer, *words: object) -> str:
        result = CliRunner().invoke(app, [str(word) for word in words])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output

    return called


@pytest.fixture(scope="session")
def pair(roomy_tmp: Path) -> Iterator[Pair]:
    """Yield a primary and its synchronous standby."""
    binaries = os.environ.get("ENGINE_TEST_PG_BIN")
    pair = Pair(roomy_tmp / "pair", binaries=Path(binaries) if binaries else None)
    try:
        pair.start()
        yield pair
    finally:
        pair.stop()


@pytest.fixture
def replicated(pair: Pair) -> Iterator[Replicated]:
    """Yield the pair, whole, with a database for this test alone."""
    pair.rejoin()
    name = sql.Identifier(database := f"test_{secrets.token_hex(6)}")
    create = sql.SQL("create database {} owner engine template engine").format(name)
    pair.primary.ask(create)
    with psycopg.connect(pair.url(database), autocommit=True) as connection:
        connection.execute(SETTLE_SEQUENCES)
    pair.wait_until_applied()
    try:
        yield Replicated(pair, database)
    finally:
        pair.rejoin()
        pair.primary.ask(sql.SQL("drop database {} with (force)").format(name))
