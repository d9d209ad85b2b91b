"""Every SQL text that the code names is understood by the migrated database."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator

import psycopg
import pytest

import engine_pg

STATEMENT = re.compile(r"\s*(select|insert|update|delete|with)\b", re.IGNORECASE)
ELSEWHERE = re.compile(r"pgautofailover\.|\\gexec")
"""Asked of a monitor, which tests/formation does, or for psql, as in docker-compose.yml."""


def statements() -> Iterator[tuple[str, str]]:
    for module in pkgutil.walk_packages(engine_pg.__path__, "engine_pg."):
        if module.name.endswith("__main__") or "_alembic" in module.name:
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            texts = value.values() if isinstance(value, dict) else [value]
            for text in texts:
                if not (name.isupper() and isinstance(text, str) and STATEMENT.match(text)):
                    continue
                if not ELSEWHERE.search(text):
                    yield f"{module.name}.{name}", text


FOUND = sorted(set(statements()))


def test_there_are_statements_to_prepare():
    assert len(FOUND) > 20


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in FOUND])
def test_it_prepares(database_url, text):
    numbers: dict[str, int] = {}

    def numbered(match: re.Match[str]) -> str:
        return f"${numbers.setdefault(match[1], len(numbers) + 1)}"

    numbered_text = re.sub(r"%\((\w+)\)s", numbered, text).replace("%%", "%")
    with psycopg.connect(database_url) as connection:
        connection.execute(f"prepare it as {numbered_text}".encode())
