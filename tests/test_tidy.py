"""Tests of the text: what no linter knows about this house.

`EXCEPTIONS` may only shrink: an entry that is no longer needed fails as well.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = sorted((ROOT / "engine_pg").rglob("*.py"))
PYTHON = sorted(
    path
    for top in ("engine_pg", "alembic", "benchmarks", "lab", "tests")
    for path in (ROOT / top).rglob("*.py")
)
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
TEXTS = [
    *PYTHON,
    *PAGES,
    *(ROOT / name for name in ("Makefile", "pyproject.toml")),
    *(
        path
        for top in (".ci", "scripts", "deploy")
        for path in (ROOT / top).rglob("*")
        if path.is_file()
    ),
]
EXCEPTIONS: dict[str, set[str]] = {
    "size": set(),
    "methods": set(),
    "words": set(),
    "writers": {"command: engine_pg/commands/journal.py, engine_pg/commands/store.py"},
}

RETENTION = ROOT / "engine_pg/singletons/retention.py"  # deletes what is long over, of all tables
MOST_LINES = 300
MOST_METHODS = 10
BANNED_WORDS = {"manager", "util", "utils", "helper", "helpers", "core"}
BANNED_NAMES = {"task", "tasks"}  # which: a command, a job, a coroutine?
WORKPLACE = re.compile(
    r"/(wor[k]|hom[e]|Users)/\w|share[d]/(design|tools|hooks)|index-ur[l]|\bpyp[i]\."
)
SILENCED = re.compile(r"# (?:noqa: [A-Z0-9, ]+|pyright: ignore\[[^]]+\])(.*)")
GAGGED = re.compile(r"# (?:noqa(?!: [A-Z])|type: ignore|pyright: (?:ignore(?!\[)|basic))")
LINK = re.compile(r"(?<!!)\[[^]]*\]\(<?([^)\s>]+)>?\)")
CREATED = re.compile(
    r"create\s+(?:unlogged\s+)?table\s+(?:if\s+not\s+exists\s+)?(\w+)", re.IGNORECASE
)
WRITTEN = re.compile(
    r"\b(?:insert\s+into|delete\s+from|update(?=\s+\w+(?:\s+(?:as\s+)?\w+)?\s+set\b))\s+(\w+)",
    re.IGNORECASE,
)
CORE_WRITTEN = re.compile(r"\b(?:insert|update|delete)\(\s*(?:\w+\.)?(\w+)[\s,)]")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def expect(found: set[str], kind: str) -> None:
    """Fail for what is found and not excepted, and for what is excepted and no longer found."""
    assert sorted(found - EXCEPTIONS[kind]) == []
    assert sorted(EXCEPTIONS[kind] - found) == [], "no longer needed: remove from EXCEPTIONS"


def words_of(identifier: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", identifier)}


def names_defined_in(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def is_property(method: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any("property" in ast.unparse(decorator) for decorator in method.decorator_list)


def public_methods(node: ast.ClassDef) -> set[str]:
    return {
        method.name
        for method in node.body
        if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef)
        and not method.name.startswith("_")
        and not is_property(method)
    }


def test_no_module_is_long():
    long = {name(path) for path in PACKAGE if len(path.read_text().splitlines()) > MOST_LINES}
    expect(long, "size")


def test_no_class_has_many_public_methods():
    wide = {
        f"{name(path)}:{node.name}"
        for path in PACKAGE
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and len(public_methods(node)) > MOST_METHODS
    }
    expect(wide, "methods")


def test_each_thing_has_one_word():
    found = {
        f"{name(path)}:{defined}"
        for path in PACKAGE
        for defined in {path.stem} | names_defined_in(ast.parse(path.read_text()))
        if words_of(defined) & BANNED_WORDS or defined in BANNED_NAMES
    }
    expect(found, "words")


@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_nothing_names_a_machine_or_a_registry(path):
    lines = path.read_text().splitlines()
    assert [line for line in lines if WORKPLACE.search(line)] == []


@pytest.mark.parametrize("path", PYTHON, ids=name)
def test_what_is_silenced_has_a_reason(path):
    for line in path.read_text().splitlines():
        assert not GAGGED.search(line), f"silences more than one rule: {line}"
        if silenced := SILENCED.search(line):
            assert re.search(r"\w{4}", silenced[1]), f"no reason: {line}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_relative_links_lead_somewhere(page):
    for target in LINK.findall(page.read_text()):
        if re.match(r"[a-z]+:|#", target):
            continue
        file, _, symbol = target.partition("#")
        path = page.parent / file
        assert path.exists(), f"{name(page)} links to {target}"
        if symbol and path.suffix == ".py":
            assert symbol in names_defined_in(ast.parse(path.read_text())), target


def test_each_table_is_written_by_one_module():
    migrations = "".join(path.read_text() for path in (ROOT / "alembic").rglob("*.py"))
    tables = {table.lower() for table in CREATED.findall(migrations)}
    assert {"member", "vm", "command"} <= tables
    writers: dict[str, set[str]] = defaultdict(set)
    for path in set(PACKAGE) - {RETENTION}:
        text = path.read_text()
        for table in WRITTEN.findall(text) + CORE_WRITTEN.findall(text):
            if table in tables:
                writers[table].add(name(path))
    found = {f"{table}: {', '.join(sorted(by))}" for table, by in writers.items() if len(by) > 1}
    expect(found, "writers")
