"""Processes with one member each, driven line by line; and what each has told of itself."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from engine_pg.clock import boottime
from engine_pg.cluster import orders
from engine_pg.cluster.breaking import Broken, break_lock
from engine_pg.cluster.keys import LockKey
from engine_pg.db.database import Database
from engine_pg.errors import EngineError

SUBMIT = """
insert into command (command_id, name, description, subject_kind, subject_id, params)
select id, 'test', 'a test', 'vm', id, '{}' from gen_random_uuid() as id
returning command_id::text
"""
WORKER = Path(__file__).with_name("lock_worker.py")
BOUND_S = 30.0
INFINITE = float("inf")


@dataclass(eq=False)
class Asked:
    """One request, and the span of time in which its process believed that it holds the keys."""

    number: int
    process: LockProcess
    keys: list[tuple[str, str]]
    wait_s: float | None
    asked_at: float
    refused: str = ""
    grants: list[tuple[str, str, int]] = field(default_factory=list)
    granted_at: float = INFINITE
    until: float = INFINITE
    lost: str = ""
    given_back: bool = False
    cancelled: bool = False
    writes: list[str] = field(default_factory=list)
    command: str = ""  # that it was asked for
    adopted_at: float = INFINITE

    def take(self, said: dict[str, Any]) -> None:
        """Note what its process says of it."""
        self.refused = said.get("refused", self.refused)
        if "granted" in said:
            self.granted_at = said["granted"]
            self.grants = [tuple(each) for each in said["grants"]]
        self.lost = said.get("lost", self.lost)
        if "until" in said:  # lost, or about to be given back
            self.until = min(self.until, said["until"])
        if "wrote" in said:
            self.writes.append(said["wrote"] or "written")

    @property
    def kept_until(self) -> float:
        """Until when its keys are nobody else's: a command's wait for the adopter."""
        return self.adopted_at if self.command and not self.given_back else self.until

    @property
    def open(self) -> bool:
        return not (self.refused or self.granted_at < INFINITE)

    @property
    def held(self) -> bool:
        return self.granted_at < INFINITE and self.until == INFINITE


@dataclass(eq=False)
class Term:
    """The span of time in which a process believed that it leads."""

    process: LockProcess
    name: str
    term: int
    began_at: float
    until: float = INFINITE


class LockProcess:
    """A worker process; what it says is taken in by `take`."""

    def __init__(self, url: str, node: str, singletons: Sequence[str] = ()) -> None:
        self.node = node
        self.member_id = ""
        self.asked: dict[int, Asked] = {}
        self.terms: list[Term] = []
        self.ended = ""
        self.synced = 0
        self.frozen = False
        self.gone = False
        self._process = subprocess.Popen(
            [sys.executable, str(WORKER), url, node, *singletons],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def tell(self, do: str, number: int, **what: Any) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, "id": number, **what}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:  # it was ended; what it said last will be read
            self.until_told(lambda: self.gone)

    def until_told(self, happened: Callable[[], Any], bound_s: float = BOUND_S) -> None:
        """Wait until it has said what makes `happened` true, or is no more."""
        with self._changed:
            if not self._changed.wait_for(lambda: happened() or self.gone, bound_s):
                raise AssertionError(f"{self.node} does not answer")

    def sync(self, number: int) -> None:
        if not (self.frozen or self.gone):
            self.tell("sync", number)
            self.until_told(lambda: self.synced == number)

    def freeze(self) -> None:
        self.frozen = True
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)
        self.frozen = False

    def kill(self) -> None:
        self._process.kill()
        self.buried()

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(BOUND_S) == 0, f"{self.node} failed"
        self.buried()

    def buried(self) -> None:
        """Wait for its end, and note that from then on it believes in nothing."""
        self._process.wait(BOUND_S)
        now = boottime()
        self._reader.join(BOUND_S)
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with suppress(BrokenPipeError):  # what it was told last, it will never read
                stream.close()
        for each in self.asked.values():
            each.until = min(each.until, now) if each.granted_at < INFINITE else each.until
            each.refused = each.refused or ("" if each.granted_at < INFINITE else "Killed")
        for term in self.terms:
            term.until = min(term.until, now)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self._take(json.loads(line))
                self._changed.notify_all()
        with self._changed:
            self.gone = True
            self._changed.notify_all()

    def _take(self, said: dict[str, Any]) -> None:
        asked = self.asked.get(said["id"])
        if "joined" in said:
            self.member_id = said["joined"]
        self.ended = said.get("ended", self.ended)
        if "at" in said:
            self.terms.append(Term(self, said["leads"], said["term"], said["at"]))
        elif "leads" in said:
            for term in self.terms:
                if (term.name, term.term) == (said["leads"], said["term"]):
                    term.until = min(term.until, said["until"])
        if asked is not None:
            asked.take(said)
        self.synced = said["id"] if "synced" in said else self.synced


class Laboratory:
    """Some processes over one database; they outlive a state machine that leaves them in order."""

    def __init__(
        self,
        url: str,
        restart: Callable[[], None] | None,
        count: int = 3,
        singletons: Sequence[str] = (),
    ) -> None:
        self.url = url
        self.singletons = singletons
        self.terms: list[Term] = []  # of processes that are no more
        self.restart_server = restart
        self.numbers = iter(range(1, 1 << 30))
        self.history: list[Asked] = []
        self._connection: psycopg.Connection | None = None
        self.processes = [LockProcess(url, f"node{n}", singletons) for n in range(count)]
        for process in self.processes:
            self.started(process)
        self.rows(
            "create table if not exists witness (seq bigserial primary key, id text, mode text,"
            " token bigint)"
        )

    def started(self, process: LockProcess) -> None:
        process.until_told(lambda: process.member_id)
        assert process.member_id, f"{process.node} did not join"

    def rows(self, query: str, *params: Any) -> list[tuple[Any, ...]]:
        """Run one statement; again, when the server was just stopped."""
        deadline = boottime() + BOUND_S
        while True:
            try:
                if self._connection is None or self._connection.closed:
                    self._connection = psycopg.connect(self.url, autocommit=True)
                cursor = self._connection.execute(query, params)
                return cursor.fetchall() if cursor.description else []
            except psycopg.OperationalError:
                if boottime() > deadline:
                    raise

    def ask(self, place: int, keys: list[tuple[str, str]], wait_s: float | None) -> Asked:
        asked = self._asked(place, keys, wait_s)
        asked.process.tell("acquire", asked.number, keys=keys, wait_s=wait_s)
        return asked

    def run_command(self, place: int, keys: list[tuple[str, str]]) -> Asked:
        """Let a process claim a new command and take locks for it."""
        asked = self._asked(place, keys, 0.0)
        [(asked.command,)] = self.rows(SUBMIT)
        asked.process.tell("run", asked.number, command=asked.command, keys=keys)
        return asked

    def adopt(self, place: int, left: Asked) -> Asked:
        """Let a process claim a command that somebody has, or has left."""
        asked = self._asked(place, left.keys, 0.0)
        asked.command = left.command
        asked.process.tell("adopt", asked.number, command=asked.command)
        return asked

    def _asked(self, place: int, keys: list[tuple[str, str]], wait_s: float | None) -> Asked:
        process, number = self.processes[place], next(self.numbers)
        asked = Asked(number, process, keys, wait_s, boottime())
        process.asked[number] = asked
        self.history.append(asked)
        return asked

    def drain(self, place: int, *, on: bool) -> str:
        """Give an operator's order; return the name of what it raised."""

        async def ordered() -> str:
            async with Database(self.url, name="operator", pool_max=2) as db:
                try:
                    await orders.drain(db, self.processes[place].node, on=on)
                except EngineError as error:
                    return type(error).__name__
            return ""

        return asyncio.run(ordered())

    def break_lock(self, key: str, token: int) -> list[Broken]:
        """Break one grant, as an operator would."""

        async def broken() -> list[Broken]:
            async with Database(self.url, name="operator", pool_max=2) as db:
                where = LockKey("stateful", key)
                return await break_lock(db, where, by="operator", reason="drawn", token=token)

        return asyncio.run(broken())

    def replace(self, place: int) -> None:
        """Start a process in the place of one that is no more."""
        old = self.processes[place]
        self.terms += old.terms
        self.processes[place] = LockProcess(self.url, old.node, self.singletons)
        self.started(self.processes[place])

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        for process in self.processes:
            process.kill()
