"""What the pages for DBAs say is so: their queries run, and their list of tables is complete."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg
import pytest
from integration.roled import roled

from engine_pg.db import migrate

PAGES = Path(__file__).resolve().parents[2] / "docs/dba"
QUERY = re.compile(r"^```sql\n(.*?)^```", re.MULTILINE | re.DOTALL)
QUERIES = QUERY.findall((PAGES / "monitoring.md").read_text())
TABLES = """
select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')
"""
CONSTANT = {
    "alembic_version",
    "schema_serves",
    "cluster_epoch_marker",
    "procrastinate_events",  # only of jobs that are not the engine's
    "procrastinate_periodic_defers",  # the engine has schedules of its own
}


@pytest.fixture(scope="module")
def known(postgres):
    with roled(postgres) as made:
        migrate.upgrade(made.url("owner"))
        yield made


def test_there_are_queries():
    assert len(QUERIES) > 10


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.split("\n")[0][:50])
def test_a_query_of_the_docs_runs_as_the_monitoring_role(known, query):
    with psycopg.connect(known.url("monitor")) as connection:
        connection.execute(query).fetchall()


def test_every_table_stands_among_those_that_grow_or_never_does(known):
    page = (PAGES / "sizing.md").read_text()
    told = set(re.findall(r"`(\w+)`", page[page.index("## What grows") :]))
    with psycopg.connect(known.admin_url) as connection:
        tables = {name for (name,) in connection.execute(TABLES)}
    assert tables - told - CONSTANT == set()
    assert CONSTANT - tables == set()
