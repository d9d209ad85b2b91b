#!/usr/bin/env python
"""Lint the migrations' SQL: what would keep a live cluster waiting, or end the nodes of before.

Each revision's SQL goes through squawk. What it finds is refused, unless alembic/accepted.toml says
for that revision why it is right there; an entry that is no longer needed is refused as well.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from collections import defaultdict
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory

from engine_pg.db import migrate

ROOT = Path(__file__).resolve().parent.parent
ACCEPTED = ROOT / "alembic/accepted.toml"
PHASED_FROM = "0016"
PHASES = ("expand", "contract")
BEGINS = re.compile(r"^-- Running upgrade .*-> (\w+)$", re.MULTILINE)
CONTRACTS = ("ban-drop-column", "ban-drop-table", "ban-drop-constraint", "ban-drop-not-null")
"""What a contraction is for."""


def texts() -> dict[str, str]:
    """Return the SQL of each revision."""
    words = BEGINS.split(migrate.sql())
    bodies = (text[: text.rfind("COMMIT;")] for text in words[2::2])
    start = "set lock_timeout = '1s';\nbegin;\n"
    return {name: f"{start}{body}commit;\n" for name, body in zip(words[1::2], bodies, strict=True)}


def squawked(sql: dict[str, str], without: list[str]) -> dict[str, dict[str, list[str]]]:
    """Return what squawk says of each revision, by rule."""
    program = Path(sysconfig.get_path("scripts")) / "squawk"
    said: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory() as folder:
        for revision, text in sql.items():
            (Path(folder) / f"{revision}.sql").write_text(text)
        words = [program, "--reporter", "json", "--pg-version", "15"]
        words += [*(f"--exclude={rule}" for rule in without), *sorted(Path(folder).glob("*.sql"))]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    if not done.stdout.startswith("["):
        sys.exit(f"squawk failed: {done.stderr or done.stdout}")
    for each in json.loads(done.stdout):
        place = f"{each['message']} (line {each['line']} of its SQL)"
        said[Path(each["file"]).stem][each["rule_name"]].append(place)
    return said


def phases(sql: dict[str, str]) -> list[str]:
    """Return what is wrong with the phases."""
    config = Config()
    config.set_main_option("script_location", str(ROOT / "alembic"))
    config.set_main_option("path_separator", "os")
    wrong: list[str] = []
    for script in ScriptDirectory.from_config(config).walk_revisions():
        phase = getattr(script.module, "phase", None)
        if script.revision >= PHASED_FROM and phase not in PHASES:
            wrong.append(f'{script.revision}: says no phase: "expand" or "contract"')
        raises = "update schema_serves" in sql[script.revision]
        if raises != (phase == "contract"):
            wrong.append(
                f"{script.revision}: a contraction, and nothing else, raises what it serves"
            )
    return wrong


def main() -> None:
    """Exit with what is wrong."""
    accepted = tomllib.loads(ACCEPTED.read_text())
    sql = texts()
    wrong = phases(sql)
    said = squawked(sql, list(accepted.pop("everywhere")))
    for revision in sorted({*said, *accepted}):
        reasons = accepted.get(revision, {})
        allowed = CONTRACTS if "update schema_serves" in sql.get(revision, "") else ()
        for rule, places in said.get(revision, {}).items():
            if rule not in reasons and rule not in allowed:
                wrong += [f"{revision}: {rule}: {place}" for place in places]
        for rule in reasons.keys() - said.get(revision, {}).keys():
            wrong.append(f"{revision}: {rule}: no longer needed in {ACCEPTED.name}")
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
