import subprocess
import sys
from types import ModuleType

import pytest
import typer

from engine_pg import __main__, __version__
from engine_pg.cli import main
from engine_pg.errors import DatabaseAway, Invalid


@pytest.fixture
def call(monkeypatch, capsys):
    """Call the command line with a command `fail` that raises what it is given."""

    def called(*words: str, raising: Exception | None = None) -> tuple[int, str]:
        app = typer.Typer()
        app.callback()(main.root)

        @app.command()
        def fail() -> None:
            if raising:
                raise raising

        monkeypatch.setattr(main, "app", app)
        monkeypatch.setattr(sys, "argv", ["engine-pg", *words])
        with pytest.raises(SystemExit) as end:
            main.run()
        out, err = capsys.readouterr()
        return end.value.code, (out + err).strip()

    return called


def test_the_version_is_shown(call):
    assert call("--version") == (0, f"engine-pg {__version__}")


@pytest.mark.parametrize(
    ("error", "status"), [(DatabaseAway("nobody answers"), 1), (Invalid("nobody answers"), 2)]
)
def test_a_failure_is_one_line(call, error, status):
    assert call("fail", raising=error) == (status, "nobody answers")


def test_failures_side_by_side_are_a_line_each(call):
    group = ExceptionGroup("two", [DatabaseAway("one"), ExceptionGroup("more", [Invalid("two")])])
    assert call("fail", raising=group) == (1, "one\ntwo")


def test_a_bug_names_itself_without_a_traceback(call):
    status, said = call("fail", raising=KeyError("x"))
    assert (status, said) == (1, "a bug, see --debug: KeyError: 'x'")


def test_the_traceback_is_there_for_those_who_ask(monkeypatch, call):
    monkeypatch.setattr(main._Choice, "debug", False)
    with pytest.raises(DatabaseAway):
        call("--debug", "fail", raising=DatabaseAway("nobody answers"))


class Interrupted(ModuleType):
    """A module during whose import somebody presses Ctrl-C."""

    def __getattr__(self, name: str) -> object:
        raise KeyboardInterrupt


@pytest.mark.parametrize("module", ["engine_pg.cli.main", "engine_pg.cli.db"])
def test_an_interrupted_import_ends_quietly(monkeypatch, capsys, module):
    monkeypatch.setitem(sys.modules, module, Interrupted(module))
    monkeypatch.setattr(sys, "argv", ["engine-pg", "db", "current"])
    with pytest.raises(SystemExit) as end:
        __main__.main()
    assert (end.value.code, *capsys.readouterr()) == (130, "", "")


@pytest.mark.parametrize("name", main.COMMANDS)
def test_each_command_is_listed_with_its_own_first_sentence(name):
    _, sentence = main.COMMANDS[name]
    command = typer.main.get_group(main.loaded(name)).commands[name]
    assert " ".join((command.help or "").split()) == sentence
    deferred = typer.main.get_group(main.app).commands[name]
    assert deferred.get_short_help_str(200) == sentence


@pytest.mark.parametrize(
    ("words", "unneeded"),
    [
        (["--help"], ["asyncio", "sqlalchemy", "starlette", "engine_pg.settings"]),
        (["--version"], ["asyncio", "sqlalchemy", "starlette", "engine_pg.settings"]),
        (["host-sim", "--help"], ["sqlalchemy", "starlette", "psycopg", "engine_pg.settings"]),
    ],
    ids=" ".join,
)
def test_a_command_imports_only_what_it_needs(words, unneeded):
    imports = [sys.executable, "-X", "importtime", "-m", "engine_pg", *words]
    done = subprocess.run(imports, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "engine_pg.cli.main" in imported
    assert not imported.intersection(unneeded)


def test_options_reach_the_command_as_they_were_given(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["engine-pg", "host-sim", "inject", "--host", "0"])
    with pytest.raises(SystemExit) as end:
        main.run()
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert "engine-pg host-sim inject [OPTIONS]" in said
    assert "Invalid value for '--host'" in said
