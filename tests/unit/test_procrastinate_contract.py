"""The private parts of Procrastinate that `engine_pg.db` overrides or relies on, as they were read.

A part that changed fails here by its name: read what it does now, see whether the override still
says what it should, and write down its new print.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from importlib.resources import files
from pathlib import Path

import pytest
from procrastinate import connector, job_context, jobs, manager, sql, utils
from procrastinate.worker import Worker

from engine_pg.db.queue import FollowingConnector, FollowingWorker

PARTS = {
    "Worker.__init__": (Worker.__init__, "d86799e901ed"),
    "Worker.run": (Worker.run, "5b08966a37d0"),
    "Worker.stop": (Worker.stop, "f2c5d03d9581"),
    "Worker._run_loop": (Worker._run_loop, "78e48dc05aa4"),
    "Worker._fetch_and_process_jobs": (Worker._fetch_and_process_jobs, "4685bb5037be"),
    "Worker._process_job": (Worker._process_job, "1b1deff01581"),
    "Worker._start_side_tasks": (Worker._start_side_tasks, "a40673d0b1d5"),
    "Worker._monitor_side_tasks": (Worker._monitor_side_tasks, "5940b536a763"),
    "Worker._update_heartbeat": (Worker._update_heartbeat, "0d319806c94d"),
    "Worker._shutdown": (Worker._shutdown, "7a7bbb18f14d"),
    "Worker._abort_running_jobs": (Worker._abort_running_jobs, "c3ed516f5d72"),
    "JobManager.register_worker": (manager.JobManager.register_worker, "6e3d5a145eee"),
    "JobManager.unregister_worker": (manager.JobManager.unregister_worker, "94e020a88600"),
    "JobManager.update_heartbeat": (manager.JobManager.update_heartbeat, "90d04de05def"),
    "JobManager.prune_stalled_workers": (manager.JobManager.prune_stalled_workers, "3d71627f19b3"),
    "utils.cancel_and_capture_errors": (utils.cancel_and_capture_errors, "2619af88a83b"),
    "utils.wait_any": (utils.wait_any, "b37d7fe1d06a"),
    "jobs.Job": (jobs.Job, "a42d097ebfa8"),
    "job_context.JobContext": (job_context.JobContext, "d2c8f5e963bb"),
}
QUERIES = {
    "register_worker": "c1f586449d9e",
    "unregister_worker": "5d457810260d",
    "update_heartbeat": "20072135a408",
    "prune_stalled_workers": "20ea599ae729",
}
LAST_MIGRATION = "03.04.00_50_post_add_retry_failed_job_procedure.sql"
VENDORED = Path(__file__).parents[2] / "alembic" / "sql" / "procrastinate_3.10.sql"


def printed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def read(part) -> str:
    """Return the print of a part's code, without comments and docstrings."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(part)))
    for each in ast.walk(tree):
        named = isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if named and ast.get_docstring(each) is not None:
            each.body = each.body[1:]
    return printed(ast.unparse(tree))


@pytest.mark.parametrize("name", PARTS)
def test_a_part_that_is_overridden_or_relied_on_is_as_it_was_read(name):
    part, known = PARTS[name]
    assert read(part) == known, f"{name} of Procrastinate changed: see engine_pg/db/queue.py"


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_that_goes_over_our_connections_is_as_it_was_read(name):
    assert printed(" ".join(sql.queries[name].split())) == QUERIES[name]


def test_every_override_has_something_to_override():
    theirs = {connector.BaseAsyncConnector: FollowingConnector, Worker: FollowingWorker}
    for base, ours in theirs.items():
        overridden = {
            name for name, each in vars(ours).items() if getattr(each, "__override__", False)
        }
        assert overridden, ours
        assert overridden <= set(dir(base))


def test_every_override_is_known_here():
    overridden = {
        f"Worker.{name}"
        for name, each in vars(FollowingWorker).items()
        if getattr(each, "__override__", False)
    }
    assert overridden <= set(PARTS)


def test_the_vendored_schema_is_that_of_the_package():
    shipped = files("procrastinate").joinpath("sql/schema.sql").read_text()
    assert VENDORED.read_text() == shipped


def test_the_package_has_no_migration_that_is_not_vendored():
    folder = files("procrastinate").joinpath("sql/migrations")
    names = [each.name for each in folder.iterdir() if each.name.endswith(".sql")]
    assert max(names) == LAST_MIGRATION
