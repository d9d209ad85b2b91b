"""What the lint of migrations sees, and which schemas a node works on."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from engine_pg.db.revision import Schema
from engine_pg.errors import Invalid

SCRIPT = runpy.run_path(str(Path(__file__).resolve().parents[2] / "scripts" / "lint_migrations.py"))
KNOWN = {"0015", "0016", "0017"}


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


@pytest.mark.parametrize(
    ("revision", "serves", "told"),
    [
        ("0016", None, None),
        ("0017", "0015", None),
        ("0018", "0016", None),
        ("0015", "0015", "run `engine-pg db upgrade`"),
        ("0018", "0017", "serves engines from 0017 on; this engine is older"),
        ("0018", None, "install the release that migrated it"),
    ],
)
def test_a_node_takes_the_schema_it_needs_and_a_newer_one_that_serves_it(revision, serves, told):
    schema = Schema(revision, serves)
    if told is None:
        schema.check("0016", KNOWN)
    else:
        with pytest.raises(Invalid, match=told):
            schema.check("0016", KNOWN)
