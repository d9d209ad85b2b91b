"""A database with roles, as a DBA makes them; each role's password is known to the test alone."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from engine_pg.db import roles

if TYPE_CHECKING:
    from conftest import PostgresServer


class Roles:
    """The roles of one database, and how to come in as each."""

    def __init__(self, url: str) -> None:
        self.prefix = f"t{secrets.token_hex(4)}"
        self.passwords = {kind: secrets.token_hex(8) for kind in roles.KINDS}
        self.admin_url = url

    def url(self, kind: str) -> str:
        parts = urlsplit(self.admin_url)
        who = f"{self.prefix}_{kind}:{self.passwords[kind]}"
        return parts._replace(netloc=f"{who}@{parts.hostname}:{parts.port}").geturl()

    def refusal(self, kind: str, query: str) -> str | None:
        with psycopg.connect(self.url(kind), autocommit=True) as connection:
            try:
                connection.execute(query)
            except psycopg.Error as error:
                return error.sqlstate
        return None


@contextmanager
def roled(postgres: PostgresServer) -> Iterator[Roles]:
    """Yield an empty database with roles, which are gone afterwards."""
    with postgres.database() as url:
        made = Roles(urlsplit(postgres.admin_url)._replace(path=urlsplit(url).path).geturl())
        roles.make(made.admin_url, made.prefix, made.passwords)
        yield made
    with psycopg.connect(postgres.admin_url, autocommit=True) as connection:
        for name in roles.names(made.prefix).values():
            connection.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))
