"""What `engine-pg formation files` writes for psql, run on the PostgreSQL of a formation: twice."""

from __future__ import annotations

import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from engine_pg.db import migrate, roles
from engine_pg.db.embedded import EmbeddedPostgres
from engine_pg.errors import Invalid
from engine_pg.formation.files import NAMES, files
from engine_pg.formation.place import KEEPER, REPLICATOR, WATCHER
from engine_pg.formation.programs import Programs, programs

BOUND_S = 60
NOT_ALLOWED = "42501"
MONITOR, ENGINE = "pg_auto_failover", "engine"
DATABASES = {KEEPER: MONITOR, WATCHER: MONITOR, REPLICATOR: "postgres"}
AS_AUTOCTL = """
create role autoctl_node login;
create role pgautofailover_replicator superuser login replication;
"""
WITH_PASSWORD = """
select rolname from pg_authid where rolpassword is not null and rolname <> 'postgres'
"""
MAY_TOO_MUCH = """
select rolname from pg_roles where rolname = any(%s)
   and (rolsuper or rolcreaterole or rolcreatedb or rolbypassrls
        or rolreplication and rolname <> 'pgautofailover_replicator')
"""
OWNED = """
select 1 from pg_database where has_database_privilege('public', oid, 'connect')
   and datname = 'engine'
"""


class Ground:
    """A server with the extension, as pg_autoctl leaves one, and the files that are run there."""

    def __init__(self, folder: Path, found: Programs) -> None:
        self.server = EmbeddedPostgres(folder, binaries=found.postgres, settings={"fsync": "off"})
        self.passwords: dict[str, str] = {}
        self._psql = found.postgres / "psql"

    def start(self) -> None:
        self.server.start()
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute("drop database engine")  # with the extension there it waits for ever
            connection.execute("drop role engine")
            connection.execute(AS_AUTOCTL)
            connection.execute("create database pg_auto_failover owner autoctl_node")
            connection.execute("alter system set shared_preload_libraries = 'pgautofailover'")
        site = self.server._site()
        assert self.server._control(site, "restart", "-l", site.log / "restart.log") == ""
        with psycopg.connect(self.url(MONITOR), autocommit=True) as connection:
            connection.execute("create extension pgautofailover cascade")

    def url(self, database: str, role: str | None = None) -> str:
        admin = self.server.url(database, "postgres")
        if role is None:
            return admin
        parts = urlsplit(admin)
        who = f"{role}:{self.passwords[role]}@{parts.hostname}:{parts.port}"
        return parts._replace(netloc=who).geturl()

    def run(self, mark: str) -> None:
        """Run both files with passwords of their own, as the pages tell."""
        self.passwords = {name: f"{mark}-of-{name}" for name in NAMES}
        written = files(Path("/formation"), "fast", self.passwords, network="samenet")
        self.passwords |= {role: self.passwords[kind] for kind, role in roles.names().items()}
        for name, database in (("monitor.sql", MONITOR), ("node.sql", "postgres")):
            done = subprocess.run(
                [self._psql, "-Xqv", "ON_ERROR_STOP=1", self.url(database)],
                input=written[name],
                capture_output=True,
                text=True,
                check=False,
                timeout=BOUND_S,
            )
            assert done.returncode == 0, done.stderr

    def known(self) -> dict[str, str]:
        """Return the roles that come in with a password, and a database for each."""
        return dict.fromkeys(roles.names().values(), ENGINE) | DATABASES

    def refusal(self, role: str, query: str) -> str | None:
        with psycopg.connect(self.url(self.known()[role], role), autocommit=True) as connection:
            try:
                connection.execute(query)
            except psycopg.Error as error:
                return error.sqlstate
        return None


@pytest.fixture(scope="module")
def ground(roomy_tmp):
    """Yield the server, on which the files were run twice, with other passwords each time."""
    try:
        found = programs()
    except Invalid as missing:
        pytest.skip(str(missing))
    made = Ground(roomy_tmp / "formation-files", found)
    try:
        made.start()
        made.run("first")
        migrate.upgrade(made.url(ENGINE, "engine_owner"))
        made.run("second")
        yield made
    finally:
        made.server.stop("immediate")


def test_run_again_they_change_every_password_and_nothing_else(ground):
    for role, database in ground.known().items():
        psycopg.connect(ground.url(database, role)).close()
        first = make_conninfo(ground.url(database, role), password=f"first-of-{role}")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(first)
    with psycopg.connect(ground.url("postgres")) as connection:
        with_password = {name for (name,) in connection.execute(WITH_PASSWORD)}
    assert with_password == set(ground.known())
    assert migrate.current(ground.url(ENGINE, "engine_owner")) == migrate.head()


def test_no_role_may_more_than_it_is_for(ground):
    with psycopg.connect(ground.url("postgres")) as connection:
        assert connection.execute(MAY_TOO_MUCH, [list(ground.known())]).fetchall() == []
        assert connection.execute(OWNED).fetchall() == []


@pytest.mark.parametrize(
    ("role", "query", "state"),
    [
        (WATCHER, "select nodename, reportedstate from pgautofailover.node", None),
        (WATCHER, "select number_sync_standbys from pgautofailover.formation", None),
        (WATCHER, "delete from pgautofailover.node", NOT_ALLOWED),
        (WATCHER, "select pgautofailover.remove_node('no host', 1, true)", NOT_ALLOWED),
        (WATCHER, "select pgautofailover.start_maintenance(1)", NOT_ALLOWED),
        (REPLICATOR, "checkpoint", None),
        (REPLICATOR, "select pg_read_binary_file('PG_VERSION')", None),
        (REPLICATOR, "select pg_read_file('PG_VERSION')", NOT_ALLOWED),
        (REPLICATOR, "select * from pg_authid", NOT_ALLOWED),
        (REPLICATOR, "create table anything (i integer)", NOT_ALLOWED),
        ("engine_owner", "create table anything (i integer); drop table anything", None),
        ("engine_owner", "create role anybody", NOT_ALLOWED),
        ("engine_runtime", "select * from vm", None),
        ("engine_runtime", "checkpoint", None),
        ("engine_read", "checkpoint", NOT_ALLOWED),
        ("engine_runtime", "create table anything (i integer)", NOT_ALLOWED),
        ("engine_monitor", "select * from vm", NOT_ALLOWED),
    ],
)  # fmt: skip
def test_a_role_of_a_formation_may_what_the_pages_say(ground, role, query, state):
    assert ground.refusal(role, query) == state


def test_the_engines_database_is_closed_to_the_roles_of_the_servers(ground):
    url = make_conninfo(ground.url("postgres", REPLICATOR), dbname=ENGINE)
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        psycopg.connect(url)
