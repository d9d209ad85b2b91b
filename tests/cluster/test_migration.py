"""Nodes of a new version that start at once find, or make, one and the same schema."""

import os
import subprocess
import sys

import psycopg

BOUND_S = 60.0


def test_two_that_migrate_an_empty_database_at_once_migrate_it_once(empty_database_url):
    env = os.environ | {"ENGINE_DATABASE_URL": empty_database_url}
    words = [sys.executable, "-m", "engine_pg", "db", "upgrade"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    both = [subprocess.Popen(words, env=env, text=True, **streams) for _ in range(2)]
    said = [each.communicate(timeout=BOUND_S)[0] for each in both]
    assert [each.returncode for each in both] == [0, 0], said
    assert said[0] == said[1]
    with psycopg.connect(empty_database_url) as connection:
        versions = connection.execute("select count(*) from alembic_version").fetchone()
        members = connection.execute("select count(*) from member").fetchone()
    assert versions == (1,)
    assert members == (0,)
