"""Who gets in, and as what: pg_autoctl's own defaults are mended."""

import asyncio
import os
import pwd
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from resolvers import system_resolver

from engine_pg.db.database import connect
from engine_pg.db.hosts import each_host
from engine_pg.db.migrate import current, head, upgrade
from engine_pg.db.urls import libpq_url
from engine_pg.errors import DatabaseAway
from engine_pg.formation.place import ADDRESS
from engine_pg.formation.profiles import KEEPER_LINE

pytestmark = pytest.mark.timeout(600)  # a formation comes up before the first one

NOT_ALLOWED = "42501"
MAY_PERFORM = """
select has_function_privilege('pgautofailover.perform_failover(text, int)', 'execute')
"""
ROLES = """
select rolname, rolsuper, rolcreatedb, rolcreaterole, rolbypassrls from pg_roles
 where rolcanlogin and rolname <> %s
"""


def single(place, **changes):
    """Return the address of one server, changed."""
    given = conninfo_to_dict(libpq_url(place.url())) | {"target_session_attrs": "any"} | changes
    return each_host(given)[0]


def test_the_application_owns_its_database_and_is_no_superuser(formation):
    with psycopg.connect(libpq_url(formation.url())) as connection:
        who = connection.execute(
            "select current_user, rolsuper, rolcreatedb, rolcreaterole, rolreplication"
            "  from pg_roles where rolname = current_user"
        ).fetchone()
        owner = connection.execute(
            "select datdba::regrole::text from pg_database where datname = current_database()"
        ).fetchone()
    assert who == ("engine", False, False, False, False)
    assert owner == ("engine",)


def test_no_role_of_pg_autoctl_is_a_superuser(formation):
    superuser = formation.place().account
    with psycopg.connect(libpq_url(formation.url())) as connection:
        rows = connection.execute(ROLES, [pwd.getpwuid(superuser.uid).pw_name]).fetchall()
    assert {name for name, *_ in rows} == {
        "engine",
        "pgautofailover_monitor",
        "pgautofailover_replicator",
    }
    assert not any(any(rights) for _, *rights in rows)


@pytest.mark.parametrize(
    ("query", "state"),
    [
        ("select nodename, reportedstate from pgautofailover.node", None),
        ("select number_sync_standbys from pgautofailover.formation", None),
        ("delete from pgautofailover.node", NOT_ALLOWED),
        ("select pgautofailover.remove_node('no host', 1, true)", NOT_ALLOWED),
        ("select pgautofailover.drop_formation('default')", NOT_ALLOWED),
        ("select pgautofailover.start_maintenance(1)", NOT_ALLOWED),
        ("create table anything (i integer)", NOT_ALLOWED),
    ],
)
def test_who_watches_may_read_the_nodes_and_ask_for_a_switchover_alone(formation, query, state):
    with psycopg.connect(formation.monitor_url(), autocommit=True) as connection:
        may = connection.execute(MAY_PERFORM).fetchone()
        refused = None
        try:
            connection.execute(query)
        except psycopg.Error as error:
            refused = error.sqlstate
    assert (may, refused) == ((True,), state)


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"sslmode": "disable", "channel_binding": "disable"}, "no encryption"),
        ({"password": "wrong"}, "password authentication failed"),
        ({"dbname": "postgres"}, "no pg_hba.conf entry"),
        ({"user": "postgres", "dbname": "postgres"}, "no pg_hba.conf entry"),
    ],
)
def test_nobody_gets_in_in_the_clear_unknown_or_elsewhere(changes, refusal, formation):
    with pytest.raises(psycopg.OperationalError, match=refusal):
        psycopg.connect(single(formation.place(), **changes), connect_timeout=5)


def test_a_server_with_another_certificate_is_not_believed(formation, tmp_path):
    other = tmp_path / "ca.crt"
    other.write_text((formation.place().tls / "server.crt").read_text())
    with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
        psycopg.connect(single(formation.place(), sslrootcert=str(other)), connect_timeout=5)


def test_a_certificate_must_be_of_the_name_that_was_looked_up(formation, monkeypatch):
    url = single(formation.place(), host="elsewhere", port=formation.place().memory.ports["node1"])
    refused = pytest.raises(DatabaseAway, match='does not match host name "elsewhere"')
    with system_resolver(monkeypatch, elsewhere=[ADDRESS]), refused:
        asyncio.run(connect(url, name="test"))


def test_migrations_run_as_that_owner_over_the_address_of_all_hosts(formation):
    upgrade(formation.url())
    assert current(formation.url()) == head()


def test_no_password_is_on_a_command_line_or_in_a_log_or_open_to_others(formation):
    place = formation.place()
    words = [word.encode() for word in place.memory.passwords.values()]
    lines = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(process.read_bytes())
        except OSError:
            continue
    texts = [path.read_bytes() for path in place.home.rglob("*.log")]
    assert len(texts) > 3
    assert not [word for word in words if any(word in text for text in [*lines, *texts])]
    holding = [
        path
        for path in [*place.folder.rglob("*")]
        if path.is_file() and path.stat().st_size < 1 << 20
        if any(word in path.read_bytes() for word in words)
    ]
    assert {path.name for path in holding} == {"formation.json", "pgpass"}
    assert not [path for path in holding if os.stat(path).st_mode & 0o077]


def test_a_keeper_does_not_wait_for_a_monitor_that_fell_silent(formation):
    place = formation.place()
    kept = [path.read_text() for path in place.home.rglob("pg_autoctl.cfg")]
    lines = [line for text in kept for line in text.splitlines() if line.startswith("monitor =")]
    assert len(lines) >= len(place.nodes)
    assert all(KEEPER_LINE in line for line in lines if "autoctl_node" in line)
