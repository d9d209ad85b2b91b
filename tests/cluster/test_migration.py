"""Nodes of a new version that start at once find, or make, one and the same schema."""

import os
import subprocess
import sys

import psycopg
import pytest

from engine_pg.db import migrate

BOUND_S = 60.0
ID = "6dd1f7a3-9e7b-4d9a-8f0c-000000000001"


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


SHAPE = """
select pg_get_triggerdef(oid) from pg_trigger where not tgisinternal
union all select pg_get_functiondef(oid) from pg_proc where pronamespace = 'public'::regnamespace
union all select relname from pg_class where relnamespace = 'public'::regnamespace
order by 1
"""


def shape(url):
    with psycopg.connect(url) as connection:
        return connection.execute(SHAPE).fetchall()


@pytest.mark.parametrize("down_to", ["0008", "0007", "0002", "base"])
def test_the_feed_is_taken_back_and_made_again_from_wherever_it_was_taken_back_to(
    fresh_database_url, down_to
):
    before = shape(fresh_database_url)
    migrate.downgrade(fresh_database_url, down_to)
    migrate.upgrade(fresh_database_url)
    assert shape(fresh_database_url) == before


def test_a_database_of_before_the_feed_is_upgraded_to_the_same(
    empty_database_url, fresh_database_url
):
    migrate.upgrade(empty_database_url, "0008")
    with psycopg.connect(empty_database_url) as connection:
        connection.execute("insert into data_center (data_center_id, name) values (%s, 'x')", [ID])
    migrate.upgrade(empty_database_url)
    assert shape(empty_database_url) == shape(fresh_database_url)
    migrate.downgrade(empty_database_url, "0008")
    with psycopg.connect(empty_database_url) as connection:
        connection.execute("update data_center set name = 'y'")  # older nodes go on
        assert connection.execute("select op from change where key = %s", [ID]).fetchall()
