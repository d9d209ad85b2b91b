"""`engine-pg users` on a real database."""

from __future__ import annotations

import asyncio

import pytest
from typer.testing import CliRunner

from engine_pg.api.accounts import users
from engine_pg.api.accounts.passwords import Passwords
from engine_pg.cli.users import app
from engine_pg.db.database import Database
from engine_pg.errors import Conflict, Invalid, NotFound


@pytest.fixture
def call(fresh_database_url, monkeypatch):
    """Call the command; what it raises is raised."""
    monkeypatch.setenv("ENGINE_DATABASE_URL", fresh_database_url)

    def called(*words: object, typed: str | None = None) -> str:
        result = CliRunner().invoke(app, [str(word) for word in words], input=typed)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output

    return called


@pytest.fixture
def logs_in(fresh_database_url):
    """Tell whether a password is a user's."""

    async def right(name: str, password: str) -> bool:
        async with Database(fresh_database_url) as db, db.read() as tx:
            user = await users.find(tx, name)
        return user is not None and await Passwords().matches(user.password_hash, password)

    return lambda name, password: asyncio.run(right(name, password))


@pytest.fixture
def password_file(tmp_path):
    file = tmp_path / "password"
    file.write_text("from a file\nand nothing of the second line\n")
    return file


def test_a_user_is_added_with_a_password_from_a_file(call, logs_in, password_file):
    assert "was added" in call("add", "admin@internal", "--password-file", password_file)
    assert logs_in("admin@internal", "from a file")
    with pytest.raises(Conflict):
        call("add", "Admin@internal", "--password-file", password_file)
    assert "is there already" in call("add", "admin@internal", "--if-missing")
    assert "admin@internal" in call("list")


def test_a_password_is_typed_twice_and_not_shown(call, logs_in):
    shown = call("add", "admin@internal", typed="typed one\ntyped one\n")
    assert "typed one" not in shown
    assert logs_in("admin@internal", "typed one")


def test_a_password_is_changed(call, logs_in, password_file):
    call("add", "a@internal", typed="old\nold\n")
    call("passwd", "a@internal", "--password-file", password_file)
    assert logs_in("a@internal", "from a file")
    assert not logs_in("a@internal", "old")
    with pytest.raises(NotFound):
        call("passwd", "nobody", "--password-file", password_file)


def test_the_last_user_is_not_removed(call, password_file):
    for name in ("a@internal", "b@internal"):
        call("add", name, "--password-file", password_file)
    call("remove", "a@internal")
    with pytest.raises(Conflict):
        call("remove", "b@internal")
    assert "b@internal" in call("list")


def test_a_password_that_cannot_be_read_is_told(call, tmp_path):
    with pytest.raises(Invalid, match="cannot read"):
        call("add", "a@internal", "--password-file", tmp_path / "nowhere")
    (tmp_path / "empty").write_text("")
    with pytest.raises(Invalid, match="1 to"):
        call("add", "a@internal", "--password-file", tmp_path / "empty")
