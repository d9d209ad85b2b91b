"""Lock sessions of members that a test moves statement by statement, and a look at all tables.

A session can be stopped inside of a statement, whose snapshot is taken then: before it tries
advisory locks, or before it gives one back.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import psycopg
from cluster.reference import Command, Granted, Led, Member, Reference, Rows, Waiting
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from engine_pg.clock import boottime
from engine_pg.cluster.batch import BATCH, Batch
from engine_pg.cluster.keys import LockKey, Mode, Wanted
from engine_pg.cluster.members import JOIN, RESUME
from engine_pg.cluster.ops import Part

KIND = "model"
BOUND_S = 10.0
TRY, UNLOCK = 4242, 4243
FUNCTIONS = {
    "pg_try_advisory_lock": ("boolean", TRY),
    "pg_try_advisory_lock_shared": ("boolean", TRY),
    "pg_advisory_unlock": ("boolean", UNLOCK),
    "pg_advisory_unlock_shared": ("boolean", UNLOCK),
}
STOPS = """
create function stops.{0}(p_key bigint) returns {1} language plpgsql as $$
begin
  perform pg_catalog.pg_advisory_xact_lock_shared({2}, pg_backend_pid());
  return pg_catalog.{0}(p_key);
end $$
"""
WITNESS = "create table witness (number bigint primary key)"
EMPTY = "truncate lock_grant, lock_ticket, leader, member_offer, member, command, witness cascade"
LOOK = """
select
  (select jsonb_agg(jsonb_build_array(token, id, mode, member_id, command_id, advisory_held,
                                      broken_by)) from lock_grant),
  (select jsonb_agg(jsonb_build_array(ticket, id, mode, member_id)) from lock_ticket),
  (select jsonb_agg(jsonb_build_array(member_id, node, epoch_id, session_number, renewal,
                                      state = 'live', draining)) from member),
  (select jsonb_agg(jsonb_build_array(name, member_id, term, pinned_node, avoid_member_id))
     from leader),
  (select jsonb_agg(jsonb_build_array(command_id, member_id, attempt, state)) from command),
  (select array_agg(number order by number) from witness),
  (select jsonb_agg(jsonb_build_array(pid, (classid::bigint << 32) | objid::bigint, mode))
     from pg_locks where locktype = 'advisory' and objsubid = 1 and granted
      and database = (select oid from pg_database where datname = current_database()))
"""
WAITS = "select count(*) from pg_locks where pid = %s and not granted"
OTHERS = """
select count(*) from pg_stat_activity where datname = current_database()
   and backend_type = 'client backend' and pid <> pg_backend_pid()
"""
ALIVE = "select count(*) from pg_stat_activity where pid = any (%s)"
MODES = {"ShareLock": Mode.SHARED, "ExclusiveLock": Mode.EXCLUSIVE}


def key(name: str) -> LockKey:
    return LockKey(KIND, name)


def signed(advisory: int) -> int:
    return advisory - (1 << 64) if advisory >= 1 << 63 else advisory


def until(happened: Callable[[], Any], what: str) -> None:
    """Poll until it happened; what does not within the bound, is a defect."""
    deadline = boottime() + BOUND_S
    while not happened():
        assert boottime() < deadline, what


def error_of(call: Callable[[], Any]) -> str | None:
    """Return the code of the error that a statement gets."""
    try:
        call()
    except psycopg.Error as error:
        return error.sqlstate or "lost"
    return None


class Server:
    """A database, and the connection of who looks at it."""

    def __init__(self, url: str, names: Sequence[str]) -> None:
        self.url = url
        self.names = {signed(key(name).advisory): key(name) for name in names}
        self.open()
        self.run("create schema stops")
        for name, (returns, stop) in FUNCTIONS.items():
            words = (sql.Identifier(name), sql.SQL(returns), sql.Literal(stop))
            self.admin.execute(sql.SQL(STOPS).format(*words))
        self.run(WITNESS)

    def open(self) -> None:
        self.admin = self.connect()

    def connect(self, *, slow: bool = False) -> psycopg.Connection[Any]:
        options = "-c statement_timeout=60s"
        if slow:
            options += " -c search_path=stops,pg_catalog,public"
        return psycopg.connect(self.url, autocommit=True, options=options)

    def run(self, query: Any, *params: Any) -> list[tuple[Any, ...]]:
        cursor = self.admin.execute(query, params or None)
        return cursor.fetchall() if cursor.description else []

    def cut(self, *pids: int) -> None:
        for pid in pids:
            self.run("select pg_terminate_backend(%s)", pid)
        self.gone(*pids)

    def gone(self, *pids: int) -> None:
        until(lambda: self.run(ALIVE, list(pids))[0][0] == 0, f"{pids} are still alive")

    def alone(self) -> None:
        """Wait until all other sessions of the database are over."""
        until(lambda: self.run(OTHERS)[0][0] == 0, "sessions go on without a client")

    def crash(self) -> None:
        """End a backend as the kernel would: the server loses its shared memory, and goes on."""
        self.run("select pg_logical_emit_message(true, 'test', '')")  # flushes what is committed
        with self.connect() as victim:
            os.kill(victim.info.backend_pid, signal.SIGKILL)
        until(lambda: error_of(lambda: self.run("select 1")), "the server does not notice")
        self.admin.close()
        deadline = boottime() + 30
        while True:
            try:
                self.open()
                return
            except psycopg.OperationalError:
                assert boottime() < deadline, "the server does not come back"

    def waits(self, connection: psycopg.Connection[Any]) -> bool:
        return bool(self.run(WAITS, connection.info.backend_pid)[0][0])

    def look(self) -> tuple[Rows, set[tuple[int, LockKey, Mode]], list[int]]:
        [(grants, tickets, members, leaders, commands, written, locks)] = self.run(LOOK)
        rows = Rows()
        for token, name, mode, member, command, held, broken in grants or ():
            rows.grants[token] = Granted(
                key(name), Mode(mode), uuid(member), uuid(command), held, broken
            )
        for ticket, name, mode, member in tickets or ():
            wanted = Wanted(key(name), Mode(mode))
            before = rows.tickets.get(ticket, Waiting(UUID(member), ()))
            together = sorted((*before.wanted, wanted), key=lambda each: each.key)
            rows.tickets[ticket] = Waiting(UUID(member), tuple(together))
        rows.members = {UUID(member): Member(*how) for member, *how in members or ()}
        rows.leaders = {
            name: Led(uuid(member), term, pinned, uuid(avoid))
            for name, member, term, pinned, avoid in leaders or ()
        }
        rows.commands = {UUID(c): Command(uuid(m), *how) for c, m, *how in commands or ()}
        advisory = {(pid, self.names[number], MODES[mode]) for pid, number, mode in locks or ()}
        return rows, advisory, written or []


def uuid(text: str | None) -> UUID | None:
    return None if text is None else UUID(text)


class Seat:
    """A node's present member, its lock session and the fenced transaction that it has open."""

    def __init__(self, server: Server, model: Reference, node: str) -> None:
        self.server, self.model, self.node = server, model, node
        self.open: tuple[Rows, Rows] | None = None  # before and after what is not committed
        self.call: Call | None = None  # a statement that was stopped
        self.work: psycopg.Connection[Any] | None = None
        self.number = 0  # of the witness in the fenced transaction that is open
        self.terms: list[tuple[str, int]] = []  # of all times
        self.tokens: dict[int, LockKey] = {}
        self.connection: psycopg.Connection[Any]

    def joins(self, member_id: UUID, ttl_s: float) -> None:
        self.member_id, self.session = member_id, 1
        self.connect()
        how = {"node": self.node, "ttl_s": ttl_s, "address": "", "version": ""}
        self.connection.execute(JOIN, {"member": member_id, **how})

    def connect(self) -> None:
        self.connection = self.server.connect(slow=True)
        self.connection.row_factory = dict_row
        self.pid = self.connection.info.backend_pid
        self.model.advisory[self.pid] = Counter()

    def resume(self, number: int, lists: dict[str, Any]) -> dict[str, Any]:
        params = {
            "member": self.member_id,
            "session": number,
            "held": Jsonb(lists["held"]),
            "tickets": lists["tickets"],
            "commands": lists["commands"],
            "leaderships": Jsonb(lists["leaderships"]),
        }
        row = self.connection.execute(RESUME, params).fetchone()
        return row["reply"]

    def ask(
        self, parts: Sequence[Part], *, session: int, sync: bool, observe: bool
    ) -> dict[str, Any]:
        params = Batch(parts).params() | {
            "member": self.member_id,
            "session": session,
            "sync": sync,
            "observe": observe,
            "seen": "",
        }
        return self.connection.execute(BATCH, params).fetchone()["reply"]

    @property
    def alive(self) -> bool:
        return self.pid in self.model.advisory

    @property
    def busy(self) -> bool:
        return self.open is not None or self.call is not None

    def died(self) -> None:
        """Its backend is gone, and with it what was not committed."""
        self.model.advisory.pop(self.pid, None)
        self.open = None
        if self.call is not None:
            assert self.call.result() is None, "a statement outlived its backend"
            self.call = None
        self.connection.close()

    def close(self) -> None:
        if self.call is not None:
            self.call.result()
        self.connection.close()
        if self.work is not None:
            self.work.close()


class Call:
    """A statement that is under way in a thread of its own."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.error: str | None = None
        self._result: Any = None
        self._thread = threading.Thread(target=self._run, args=(call,), daemon=True)
        self._thread.start()

    def _run(self, call: Callable[[], Any]) -> None:
        try:
            self._result = call()
        except psycopg.Error as error:
            self.error = error.sqlstate or "lost"

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def result(self) -> Any:
        self._thread.join(6 * BOUND_S)
        assert self.done, "a statement does not end"
        return self._result
