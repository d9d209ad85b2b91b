import io
import json
import logging
import sys

import pytest
import structlog

from engine_pg.cli.logs import set_up_logging


@pytest.fixture
def lines(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    root = logging.getLogger()
    before = root.handlers[:], root.level
    set_up_logging("info", "json", node="node-1")

    def said() -> list[dict]:
        return [json.loads(line) for line in stream.getvalue().splitlines()]

    yield said
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()


def test_both_ways_of_logging_give_the_same_line(lines):
    logging.getLogger("a").info("seen %s", "twice")
    structlog.get_logger("a").info("seen %s", "twice")
    first, second = lines()
    del first["timestamp"], second["timestamp"]
    assert (
        first
        == second
        == {"event": "seen twice", "level": "info", "logger": "a"} | {"node": "node-1"}
    )


def test_what_is_bound_is_on_every_line(lines):
    with structlog.contextvars.bound_contextvars(command="c1"):
        logging.getLogger("a").warning("within")
    logging.getLogger("a").warning("after")
    assert [line.get("command") for line in lines()] == ["c1", None]


@pytest.mark.parametrize("name", ["password", "access_token", "Authorization", "api_key"])
def test_values_with_a_secret_name_are_masked(lines, name):
    structlog.get_logger("a").info("x", **{name: "hidden"})
    assert lines()[0][name] == "***"


def test_a_fencing_token_is_no_secret(lines):
    structlog.get_logger("a").info("x", fencing_token=7)
    assert lines()[0]["fencing_token"] == 7


def test_passwords_in_addresses_and_headers_are_masked_in_tracebacks_as_well(lines):
    try:
        raise ValueError("postgresql://engine:hidden@db/engine")
    except ValueError:
        logging.getLogger("a").exception("sent Authorization: Bearer hidden.hidden")
    line = lines()[0]
    assert "postgresql://engine:***@db/engine" in line["exception"]
    assert "hidden" not in json.dumps(line)
