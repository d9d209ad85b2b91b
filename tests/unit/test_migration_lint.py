"""What the lint of migrations sees."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

SCRIPT = runpy.run_path(str(Path(__file__).resolve().parents[2] / "scripts" / "lint_migrations.py"))


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        ("create index anything on command (name);", "require-concurrent-index-creation"),
        ("alter table command drop column name;", "ban-drop-column"),
        ("alter table command rename column name to title;", "renaming-column"),
        ("alter table command alter column name set not null;", "adding-not-nullable-field"),
        ("alter table command alter column name type varchar;", "changing-column-type"),
        (
            "alter table command add constraint c foreign key (vm_id) references vm (vm_id);",
            "adding-foreign-key-constraint",
        ),
    ],
)
def test_what_a_live_cluster_would_wait_for_is_seen(statement, rule):
    sql = f"set lock_timeout = '1s';\nbegin;\n{statement}\ncommit;\n"
    assert rule in SCRIPT["squawked"]({"9999": sql}, [])["9999"]
