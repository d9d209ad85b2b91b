import sys

import pytest
import typer

from engine_pg import __version__
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
