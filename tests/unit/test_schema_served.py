"""On which schemas a node works: the one it needs, and a newer one that says that it serves it."""

from __future__ import annotations

import pytest

from engine_pg.db.revision import Schema
from engine_pg.errors import Invalid

KNOWN = {"0015", "0016", "0017"}


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
