import ast
import re
import runpy
from pathlib import Path

import pytest

from engine_pg.api import formation, measured, replicated
from engine_pg.api.app import ROUTES
from engine_pg.api.metrics import Metrics

ROOT = Path(__file__).resolve().parents[2]
API = "/ovirt-engine/api"
FOLDER = ROOT / "docs" / "reference"
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "reference.py"))
REST = (FOLDER / "rest.md").read_text()
JOURNAL = (FOLDER / "journal.md").read_text()
ROUTE_ROW = re.compile(r"^\| ([A-Z, ]+) \| `(/[^`]*)` \|", re.MULTILINE)


@pytest.mark.parametrize("page", SCRIPT["PAGES"])
def test_a_page_says_what_the_code_says(page):
    text = (FOLDER / page).read_text()
    assert text == SCRIPT["written"](text), "call `make reference`"


def test_every_part_of_the_code_stands_on_a_page():
    pages = "".join((FOLDER / page).read_text() for page in SCRIPT["PAGES"])
    missing = [name for name in SCRIPT["PARTS"] if f"from the code: {name};" not in pages]
    assert missing == []


def test_a_page_behind_the_code_is_noticed():
    text = (FOLDER / "settings.md").read_text()
    outdated = text.replace("`ENGINE_LEASE_TTL_S` | `5`", "`ENGINE_LEASE_TTL_S` | `6`")
    assert outdated != text
    assert SCRIPT["written"](outdated) == text


def test_rest_names_each_route_with_its_methods_and_no_other():
    routes = {
        (method, route.path)
        for route in ROUTES
        for method in route.methods or ()
        if method != "HEAD"
    }
    outside = {path for _, path in routes if not path.startswith(API)} | {
        path for _, path in routes if path.startswith("/ovirt-engine/s")
    }
    documented = {
        (method, path if path in outside else (API + path).rstrip("/"))
        for methods, path in ROUTE_ROW.findall(REST)
        for method in methods.split(", ")
    }
    assert sorted(routes - documented) == []
    assert sorted(documented - routes) == []


def test_rest_names_each_metric_and_no_other():
    counted = Metrics()
    known = {
        *measured.GAUGES,
        *measured.NODE,
        *replicated.GAUGES,
        *formation.GAUGES,
        counted.requests.name,
        counted.latency.name,
    }
    documented = set(re.findall(r"^\| `(engine_\w+)` \|", REST, re.MULTILINE))
    assert documented == known | {"engine_database_answers"}


def recorded_kinds() -> set[str]:
    """Return the kinds that calls which write a record into the journal name in their arguments."""
    calls = (
        node
        for path in (ROOT / "engine_pg" / "simulator").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    )
    return {
        argument.value
        for call in calls
        for argument in call.args[: {"admit": 2}.get(call.func.attr, 1)]
        if call.func.attr in ("record", "_record", "append", "admit")
        and isinstance(argument, ast.Constant)
    }


def test_the_journals_page_names_each_kind_of_record_and_no_other():
    table = JOURNAL.partition("## Records")[2]
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", table, re.MULTILINE)
    documented = {kind for row in rows for kind in re.findall(r"`(\w+)`", row)}
    assert documented == recorded_kinds()
