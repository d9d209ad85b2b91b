"""The how-to for other services: its example, its SQL, its privileges, as a reader tries them."""

from __future__ import annotations

import ast
import asyncio
import re
import secrets
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from integration.nodes import eventually, run
from integration.test_cluster_library import KEY, cluster, execute
from psycopg import sql

import engine_pg.cluster
from engine_pg.clock import boottime
from engine_pg.cluster import schema
from engine_pg.errors import Forbidden

HOW_TO = Path(__file__).resolve().parents[2] / "docs/how-to"
PAGE = (HOW_TO / "coordinate-your-own-service.md").read_text()
GRANTS, TABLES = re.findall(r"^```sql\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
INVOICES = 30
BOUND_S = 20.0
OWNS = """
select count(*) from pg_class where relowner = current_user::regrole and relnamespace > 16383
"""
CUT = """
select pg_terminate_backend(pid) from pg_stat_activity
 where usename = current_user and application_name like 'engine_pg lock session%'
"""
FILL = f"insert into invoice (invoice_id) select generate_series(1, {INVOICES})"
OWN_GRANTS = """
grant select, insert, update on invoice, report to invoicing;
grant usage on sequence report_report_id_seq to invoicing;
"""


class Service:
    """One real process of an example."""

    def __init__(self, url: str, node: str, example: str = "invoicing.py") -> None:
        self.node = node
        self.lines: list[str] = []
        words = [sys.executable, str(HOW_TO / "examples" / example), url, node]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        with self.process.stdout as lines:
            for line in lines:
                self.lines.append(line.strip())

    def said(self, text: str) -> list[str]:
        return [line for line in self.lines if text in line]

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        status = self.process.wait(timeout=20)
        self._reading.join(timeout=20)
        return status


@pytest.fixture
def role_url(postgres, empty_database_url):
    """Yield the address for a role that owns nothing and was granted what the page says."""
    schema.install(empty_database_url)
    for query in (TABLES, FILL):
        execute(empty_database_url, query)
    role, password = f"invoicing_{secrets.token_hex(4)}", secrets.token_hex(8)
    login = sql.SQL("create role {} login password {}")
    execute(postgres.admin_url, login.format(sql.Identifier(role), sql.Literal(password)))
    try:
        for query in (GRANTS, OWN_GRANTS):
            execute(empty_database_url, re.sub(r"\binvoicing\b", role, query))
        parts = urlsplit(empty_database_url)
        place = parts.netloc.rpartition("@")[2]
        yield parts._replace(netloc=f"{role}:{password}@{place}").geturl()
    finally:
        place = urlsplit(empty_database_url).path
        admin_url = urlsplit(postgres.admin_url)._replace(path=place).geturl()
        execute(admin_url, sql.SQL("drop owned by {0}").format(sql.Identifier(role)))
        execute(admin_url, sql.SQL("drop role {}").format(sql.Identifier(role)))


@contextmanager
def services(url, *nodes):
    running = [Service(url, node) for node in nodes]
    try:
        yield running
    finally:
        for each in running:
            if each.process.poll() is None:
                each.end(signal.SIGKILL)


def wait_for(check):
    deadline = boottime() + BOUND_S
    while not (found := check()):
        assert boottime() < deadline, "it was not said in time"
        threading.Event().wait(0.02)
    return found


def test_the_example_goes_on_when_its_busy_process_is_killed(role_url):
    with services(role_url, "one", "two", "three") as running:
        busy = wait_for(lambda: next((s for s in running if len(s.said("paid ")) > 3), None))
        others = [each for each in running if each is not busy]
        leading = wait_for(lambda: next((s for s in running if s.said("reported")), None))
        assert not any(each.said("paid ") for each in others)
        assert busy.end(signal.SIGKILL) == -signal.SIGKILL
        wait_for(lambda: all(each.said("joined") for each in others))
        wait_for(lambda: any(each.said("the month is closed") for each in others))
        still = leading if leading is not busy else None
        reporting = wait_for(lambda: next((s for s in others if s.said("reported")), still))
        assert [each.end(signal.SIGTERM) for each in others] == [0, 0]
        assert all(each.said("left") for each in others)

    rows = execute(role_url, "select invoice_id, paid_by, token, payments from invoice order by 1")
    assert [row[3] for row in rows] == [1] * INVOICES
    assert [row[2] for row in rows] == sorted(row[2] for row in rows)
    payers = list(dict.fromkeys(row[1] for row in rows))
    assert payers[0] == busy.node
    assert len(payers) == 2
    calls = [int(line.split()[1]) for each in (busy, *others) for line in each.said("paid ")]
    assert sorted(set(calls)) == list(range(1, INVOICES + 1))
    assert len(calls) - len(set(calls)) <= 1, "only the call in flight is repeated"
    terms = [term for (term,) in execute(role_url, "select term from report order by report_id")]
    assert terms == sorted(terms)
    assert reporting.node in {n for (n,) in execute(role_url, "select distinct node from report")}


def test_a_role_that_owns_nothing_may_lock_lead_end_and_be_ended(role_url):
    async def story():
        assert execute(role_url, OWNS) == [(0,)]
        async with cluster(role_url, "b") as b, cluster(role_url, "a") as a:
            async with a.lock(KEY) as hold, a.fenced(hold) as tx:
                assert await tx.run("update invoice set paid_by = 'a'") == INVOICES
            ran = asyncio.Event()
            b.lead("nightly", lambda _leadership: told(ran))
            await asyncio.wait_for(ran.wait(), 10)
            execute(role_url, CUT)  # a session of the same role, as the undertaker ends it

            async def resumed():
                return a.trusted and b.trusted

            await eventually(resumed)
            async with b.lock(KEY, wait_s=5):
                pass

    run(story())


async def told(ran):
    ran.set()
    await asyncio.sleep(30)


def test_a_role_without_the_grants_is_told_what_is_missing(role_url):
    with pytest.raises(Forbidden, match="permission denied"):
        schema.install(role_url, "somewhere_else")


@pytest.mark.parametrize(
    "block", re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
)
def test_the_pages_snippets_name_what_there_is(block):
    tree = compile(block, "page", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.module == "engine_pg.cluster"
            for each in node.names:
                assert hasattr(engine_pg.cluster, each.name) or each.name == "schema"
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "cluster":
            assert hasattr(engine_pg.cluster.Cluster, node.attr)
