"""Nodes of a new version that start at once find, or make, one and the same schema."""

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import psycopg
import pytest

from engine_pg.db import migrate
from engine_pg.db.embedded import programs
from engine_pg.errors import Unavailable

ROOT = Path(__file__).resolve().parents[2]
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


def alembic(url, *words):
    """Run alembic as a DBA does: nothing but the URL, from the environment."""
    done = subprocess.run(
        [sys.executable, "-m", "alembic", *words],
        cwd=ROOT,
        env=os.environ | {"ENGINE_DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
        timeout=BOUND_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def program(name):
    given = os.environ.get("ENGINE_TEST_PG_BIN")
    return (Path(given) if given else programs._find()) / name


def run_by_psql(url, text):
    words = [program("psql"), "--no-psqlrc", "--quiet", "-v", "ON_ERROR_STOP=1", url]
    done = subprocess.run(
        words, input=text, capture_output=True, text=True, check=False, timeout=BOUND_S
    )
    assert done.returncode == 0, done.stderr


def dumped(url):
    """Return the whole schema as text: with its indexes, settings of tables, and comments."""
    words = [program("pg_dump"), "--schema-only", "--no-owner", url]
    text = subprocess.run(words, capture_output=True, text=True, check=True, timeout=BOUND_S).stdout
    text = text.replace("\t", "    ")  # alembic prints none
    return re.sub(r"^\\(un)?restrict .*$", "", text, flags=re.MULTILINE)


def test_alembic_alone_makes_the_same_schema_online_and_by_its_printed_sql(
    postgres, empty_database_url
):
    alembic(empty_database_url, "upgrade", "head")
    with postgres.database() as other:
        run_by_psql(other, alembic(other, "upgrade", "head", "--sql"))
        assert dumped(other) == dumped(empty_database_url)
        assert migrate.current(other) == migrate.head()
    migrate.check(empty_database_url)
    alembic(empty_database_url, "check")


def test_nothing_later_is_left_on_another_branch(fresh_database_url):
    migrate.downgrade(fresh_database_url, "0015")  # 0017 joined it with 0016, which others rest on
    with psycopg.connect(fresh_database_url) as connection:
        found = connection.execute("select version_num from alembic_version").fetchall()
    assert found == [("0015",)]


def test_each_revision_is_taken_back_and_made_again(fresh_database_url):
    before = dumped(fresh_database_url)
    revisions = sorted(each for each in migrate.known() if each > "0010")
    shapes = {}
    for revision, below in zip(
        reversed(revisions), [*reversed(revisions[:-1]), "0010"], strict=True
    ):
        shapes[revision] = dumped(fresh_database_url)
        migrate.downgrade(fresh_database_url, below)
    for revision in revisions:
        migrate.upgrade(fresh_database_url, revision)
        assert ordered(dumped(fresh_database_url)) == ordered(shapes[revision]), revision
    assert ordered(dumped(fresh_database_url)) == ordered(before)


def ordered(text):
    """A column that was dropped and added again stands last."""
    return sorted(line.strip(" ,") for line in text.split("\n"))


def test_a_migration_gives_way_to_a_long_transaction_and_goes_on_when_that_is_over(
    fresh_database_url,
):
    migrate.downgrade(fresh_database_url, "0015")
    with psycopg.connect(fresh_database_url) as reader:
        reader.execute("lock table vm in share update exclusive mode")  # as a vacuum has it
        upgrading = threading.Thread(target=migrate.upgrade, args=[fresh_database_url])
        upgrading.start()
        upgrading.join(2.5)  # longer than it waits for a table at once
        assert upgrading.is_alive()
        with psycopg.connect(fresh_database_url) as other:
            other.execute("set lock_timeout = '3s'")
            other.execute("lock table vm in row exclusive mode")
        assert migrate.current(fresh_database_url) == "0015"
        reader.rollback()
        upgrading.join(BOUND_S)
    assert migrate.current(fresh_database_url) == migrate.head()


def test_a_migration_that_a_table_is_never_free_for_gives_up_and_changes_nothing(
    fresh_database_url,
):
    migrate.downgrade(fresh_database_url, "0016")  # beside 0015
    before = shape(fresh_database_url)
    with psycopg.connect(fresh_database_url) as reader:
        reader.execute("lock table vm in share update exclusive mode")
        with pytest.raises(Unavailable, match="long transaction"):
            migrate.upgrade(fresh_database_url, tries=1)
    assert migrate.current(fresh_database_url) == "0015"
    assert shape(fresh_database_url) == before
