"""The load and the verdict of a demo, in a container beside the stack: `inside.py SCENARIO`.

Clients start and stop VMs through the proxy, a writer commits straight to the database, readers
ask the API; then the scenario happens, and what became of all of it is judged. What is to be done
to containers is asked of `run.py` outside, line by line: a program in here is to have no say over
Docker.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, LiteralString

import httpx
from typing_extensions import override

from engine_pg.clock import boottime
from engine_pg.db.database import connect
from engine_pg.db.tx import Connection, Params, Record
from engine_pg.db.urls import libpq_url
from engine_pg.db.wire import bounded
from engine_pg.demo.kill_node import Takeover
from engine_pg.demo.rest import Client, Heard
from engine_pg.demo.restart_database import FIRST_WORK, HELD, NOW, Held, Outage
from engine_pg.demo.stack import ADMIN
from engine_pg.demo.state import StateFolder
from engine_pg.demo.story import Scene, play
from engine_pg.demo.target import Target
from engine_pg.demo.verdict import Figure, as_json
from engine_pg.demo.watch import Watch
from engine_pg.errors import DatabaseAway, EngineError, Unavailable
from engine_pg.settings import load_settings
from engine_pg.supervisor import Background

PROXY: Final = "http://proxy:8080"
ENGINES: Final = ("engine1", "engine2", "engine3")
DATABASES: Final = ("node1", "node2")
HOST_PORTS: Final = (54321, 54322, 54323)
BEAT: Final[LiteralString] = """
select pg_logical_emit_message(true, 'demo', 'beat'), clock_timestamp() as now
"""
REVISION: Final = "select version_num as revision from alembic_version"
ALARMS: Final[LiteralString] = """
select description from (select severity, description, at from event
   union all select severity, description, at from event_inbox) as e
 where severity = 'alert' and at > %(since)s
"""
_VMS: Final = 8
_BEAT_S: Final = 0.02
_READ_S: Final = 0.1
_READERS: Final = 4
_COMMIT_BOUND_S: Final = 2.0
_READ_BOUND_S: Final = 20.0
_WARM_UP_S: Final = 2.0
_LOOK_ON_S: Final = 10.0
_BOUND_S: Final = 90.0
_FATES_S: Final = 30.0
_TAKEN_S: Final = 0.5  # after the lease
_RESUMED_S: Final = 1.0
_READ_GAP_S: Final = 3.5
"""A read waits for a word of the database for `read_wait_s`, 2 s; for a frozen engine the proxy
waits 3 s, until it asks another."""

_POLL_S: Final = 0.05
_LONG_CALL_S: Final = 3.0  # outlasts part of the outage, so that locks are needed through it
_LEAST_RUNNING: Final = 2


class Outside:
    """Whoever started us: does to containers what is asked, and is told what goes on."""

    async def do(self, *words: str) -> str:
        """Let it be done; return what was said to it."""
        self._line({"do": words})
        answer = json.loads(await asyncio.to_thread(sys.stdin.readline))
        if not answer["ok"]:
            raise Unavailable(f"{' '.join(words)}: {answer['said']}")
        return answer["said"]

    def tell(self, line: str) -> None:
        """Say what goes on."""
        self._line({"say": line})

    def report(self, document: dict[str, Any]) -> None:
        """Hand the verdict over."""
        self._line({"report": document})

    def _line(self, content: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(content) + "\n")
        sys.stdout.flush()


class Composed(Target):
    """The stack of docker-compose.yml, as the stories know one; clients go through its proxy."""

    @override
    def client(self, tell: Callable[[Heard], None] = lambda _: None) -> Client:
        """Return a client that logs in as the administrator."""
        return Client([PROXY], ADMIN, self.state.admin_password(), tell=tell)


def composed(url: str) -> Composed:
    """Describe the stack as `engine-pg up` would, in a folder of our own."""
    state = StateFolder(Path("/tmp/state"))
    with state.locked():
        state.password_file.write_text(Path("/run/secrets/admin").read_text())
    state.describe(
        {
            "database_url": url,
            "postgres": None,
            "user": ADMIN,
            "nodes": [
                {"name": name, "url": f"http://{name}:8080", "pid": 1}  # it has one, in there
                for name in ENGINES
            ],
            "simulator": {
                "control": "hosts:54320",
                "journal": "/var/lib/engine/hosts.journal",
                "host_ports": HOST_PORTS,
            },
        }
    )
    return Composed(state)


@dataclass(frozen=True, slots=True)
class Ack:
    """A commit that a server has acknowledged."""

    at_s: float
    host: str
    now: datetime  # by that server


@dataclass(slots=True)
class Writer:
    """Commits every few milliseconds, on the engine's own kind of connection."""

    url: str
    acks: list[Ack] = field(default_factory=list[Ack])

    async def run(self) -> None:
        """Write until cancelled; a lost connection is opened anew."""
        connection: Connection | None = None
        try:
            while True:
                try:
                    connection = connection or await connect(self.url, name="demo writer")
                    await self._beat(connection)
                except EngineError:
                    if connection is not None:
                        await connection.close()
                    connection = None
                await asyncio.sleep(_BEAT_S)
        finally:
            if connection is not None:
                await connection.close()

    async def _beat(self, connection: Connection) -> None:
        cursor = await bounded(connection, connection.execute(BEAT), _COMMIT_BOUND_S)
        row = await cursor.fetchone()
        assert row is not None
        self.acks.append(Ack(boottime(), connection.info.host, row["now"]))

    async def first(self, since_s: float, other_than: str = "") -> Ack:
        """Wait for the first commit since then, on another server than the one that is named."""
        deadline = boottime() + _BOUND_S
        while True:
            for ack in self.acks:
                if ack.at_s > since_s and ack.host != other_than:
                    return ack
            if boottime() > deadline:
                raise Unavailable(f"no server took writes within {_BOUND_S:g} s")
            await asyncio.sleep(_POLL_S)

    def gap_s(self, since_s: float) -> float:
        """Return the longest time without an acknowledged commit from then on."""
        return longest([since_s, *(ack.at_s for ack in self.acks if ack.at_s > since_s)])


@dataclass(slots=True)
class Readers:
    """Ask the API through the proxy, several at a time, each time once: nothing is repeated."""

    token: str
    answers: list[float] = field(default_factory=list[float])
    longest_s: float = 0.0
    failed: list[str] = field(default_factory=list[str])

    async def run(self) -> None:
        """Read until cancelled."""
        async with httpx.AsyncClient(timeout=_READ_BOUND_S, trust_env=False) as http:
            while True:
                await self._read(http)
                await asyncio.sleep(_READ_S)

    async def _read(self, http: httpx.AsyncClient) -> None:
        began = boottime()
        headers = {"Authorization": f"Bearer {self.token}", "Accept": "application/json"}
        try:
            answer = await http.get(f"{PROXY}/ovirt-engine/api/vms?max=5", headers=headers)
        except httpx.TransportError as problem:
            self.failed.append(repr(problem))
            return
        now = boottime()
        if answer.is_success:
            self.answers.append(now)
            self.longest_s = max(self.longest_s, now - began)
        else:
            self.failed.append(f"{answer.status_code} {answer.text[:100]}")

    def gap_s(self, since_s: float) -> float:
        """Return the longest time in which nobody was answered from then on."""
        return longest([since_s, *(at_s for at_s in self.answers if at_s > since_s)])


def longest(moments: Sequence[float]) -> float:
    """Return the longest time between neighbours."""
    return max((after - before for before, after in itertools.pairwise(moments)), default=0.0)


@dataclass(frozen=True, slots=True)
class Scenario:
    """Who is hurt, and how; how it is mended; and what is promised of commits meanwhile."""

    about: str
    victims: tuple[str, ...]
    fault: str
    mended: str = ""
    write_gap_s: float = 2.0
    moves: bool = False  # another server is to take writes


SCENARIOS: Final = {
    "kill-engine": Scenario("kill -9 the busiest engine", ("engine",), "kill", "start"),
    "freeze-engine": Scenario("freeze the busiest engine", ("engine",), "pause", "unpause"),
    "restart-engines": Scenario("restart all engines in order, one by one", ENGINES, "restart"),
    "kill-primary": Scenario(
        "kill -9 the primary with its keeper", ("primary",), "kill", "start", 10.0, moves=True
    ),
    "freeze-primary": Scenario(
        "freeze the primary with its keeper", ("primary",), "pause", "unpause", 10.0, moves=True
    ),
    "cut-primary": Scenario(
        "cut the primary off, alive", ("primary",), "cut", "join", 10.0, moves=True
    ),
    "switchover": Scenario("a planned switchover", (), "switchover", "", 2.0, moves=True),
    "upgrade-schema": Scenario(
        "upgrade the schema and the engines from the version before", ENGINES, "upgrade"
    ),
    "monitor-away": Scenario("kill the monitor", ("monitor",), "kill", "start"),
    "standby-away": Scenario("kill the standby", ("standby",), "kill", "start", 10.0),
    "kill-engine-and-primary": Scenario(
        "kill the busiest engine and the primary at once",
        ("engine", "primary"),
        "kill",
        "start",
        10.0,
        moves=True,
    ),
}


class Play:
    """One scenario, with its probes."""

    def __init__(self, scenario: Scenario, outside: Outside) -> None:
        self._scenario = scenario
        self._outside = outside

    async def incident(self, scene: Scene) -> Sequence[Figure]:
        """Let it happen under the eyes of a writer and some readers."""
        writer = Writer(scene.target.database_url)
        async with scene.target.client() as client:
            readers = Readers(await client.token())
        async with Background() as background:
            background.start(writer.run(), name="writer")
            for number in range(_READERS):
                background.start(readers.run(), name=f"reader {number}")
            await scene.target.slow_down(_LONG_CALL_S, hosts=1)
            await asyncio.sleep(_WARM_UP_S)
            return await self._hurt(scene, writer, readers)

    async def _hurt(self, scene: Scene, writer: Writer, readers: Readers) -> Sequence[Figure]:
        scenario = self._scenario
        primary = (await writer.first(boottime())).host
        busiest = await scene.watch.busiest(_LEAST_RUNNING, _BOUND_S)
        victims = list(self._named(busiest["node"], primary))
        began = boottime()
        takeover = Takeover(scene.watch, busiest["member_id"])
        self._outside.tell(f"{scenario.about}: {', '.join(victims) or primary}")
        async with Watch(scene.target.database_url) as watch, asyncio.TaskGroup() as group:
            before = Held(await watch.rows(HELD))
            following = group.create_task(self._locks(watch, before))
            figures = await self._do(scene, victims)
            if scenario.moves:
                ack = await writer.first(began, other_than=primary)
                self._outside.tell(f"{ack.host} takes writes after {ack.at_s - began:.1f} s")
                figures += await _resumed(scene, ack)
        if "engine" in scenario.victims:
            figures += await self._taken_over(takeover, busiest, writer.gap_s(began))
        elif scenario.fault not in ("restart", "upgrade") and not scenario.moves:
            await asyncio.sleep(_LOOK_ON_S)
        figures += _fates(following.result())
        await scene.target.heal()
        figures.append(await self._mend(scene, victims))
        return [*self._seen(writer, readers, began), *figures]

    async def _locks(self, watch: Watch, held: Held) -> Held | None:
        """Look what becomes of locks that were held when the fault struck; not of a dead engine's.

        Where another server is to take writes, that is the last look at the old one.
        """
        if "engine" in self._scenario.victims:
            return None
        async with asyncio.timeout(_BOUND_S):
            if self._scenario.moves:
                outage = Outage(watch, held)
                await outage.follow()
                held = outage.held
            deadline = boottime() + _FATES_S
            while len(held) > held.fates.total() and boottime() < deadline:
                with suppress(EngineError):
                    await held.follow(watch, _FATES_S)
                await asyncio.sleep(_POLL_S)
        return held

    def _named(self, engine: str, primary: str) -> Iterator[str]:
        standby = next(name for name in DATABASES if name != primary)
        known = {"engine": engine, "primary": primary, "standby": standby}
        return (known.get(victim, victim) for victim in self._scenario.victims)

    async def _do(self, scene: Scene, victims: Sequence[str]) -> list[Figure]:
        if self._scenario.fault == "upgrade":
            return await _upgraded(scene, self._outside, victims)
        if self._scenario.fault == "switchover":
            since = (await _looked(scene, NOW))[0]["now"]
            done = json.loads(await self._outside.do("switchover"))
            return await _switched(scene, since, done)
        if self._scenario.fault == "restart":
            for victim in victims:
                await self._outside.do("restart", victim)
        else:
            await self._outside.do(self._scenario.fault, *victims)
        return []

    async def _taken_over(
        self, takeover: Takeover, busiest: Record, outage_s: float
    ) -> list[Figure]:
        """Measure until all that it had is others'; without a database no lease is judged."""
        await takeover.follow(_BOUND_S)
        most = busiest["ttl_s"] + _TAKEN_S + (outage_s if self._scenario.moves else 0.0)
        return [
            Figure("commands_taken", "commands that the engine ran", len(takeover.commands)),
            Figure(
                "takeover_s",
                "until all were adopted or over, and led elsewhere",
                max(takeover.commands_s, takeover.leaderships_s),
                "s",
                most=most,
            ),
        ]

    async def _mend(self, scene: Scene, victims: Sequence[str]) -> Figure:
        began = boottime()
        if self._scenario.mended:
            await self._outside.do(self._scenario.mended, *victims)
        while await self._outside.do("settled") != "t":
            if boottime() > began + _BOUND_S:
                raise Unavailable(f"the formation does not settle within {_BOUND_S:g} s")
            await asyncio.sleep(5 * _POLL_S)
        await scene.target.until_whole()
        return Figure("whole_s", "until all was whole again", boottime() - began, "s")

    def _seen(self, writer: Writer, readers: Readers, began: float) -> list[Figure]:
        for said in sorted(set(readers.failed)):
            self._outside.tell(f"a read failed: {said}")
        return [
            Figure(
                "write_gap_s",
                "longest time without a commit",
                writer.gap_s(began),
                "s",
                most=self._scenario.write_gap_s,
            ),
            Figure("commits", "commits", len(writer.acks), least=1),
            Figure("reads", "reads of the API", len(readers.answers), least=1),
            Figure("reads_failed", "of these failed", len(readers.failed), most=0),
            Figure(
                "read_gap_s",
                "longest time in which no read was answered",
                readers.gap_s(began),
                "s",
                most=_READ_GAP_S,
            ),
            Figure("read_longest_s", "longest read", readers.longest_s, "s"),
        ]


async def _switched(scene: Scene, since: datetime, done: dict[str, Any]) -> list[Figure]:
    """Return what `engine-pg formation switchover` measured itself, and whom it alarmed."""
    alarms = await _looked(scene, ALARMS, {"since": since})
    return [
        Figure("own_gap_s", "no write for, by its own writer", done["write_gap_s"], "s", most=2.0),
        Figure("own_lost", "writes of that one lost", done["lost"], most=0),
        Figure("missing", "engines that did not resume", len(done["missing"]), most=0),
        Figure("alarms", "alerts among the events", len(alarms), most=0),
    ]


async def _upgraded(scene: Scene, outside: Outside, engines: Sequence[str]) -> list[Figure]:
    """Migrate, replace the engines one by one, contract; clients work on in between."""
    before = await _revision(scene)
    steps = [("migrate",), *(("replace", name) for name in engines), ("contract",)]
    took: list[float] = []
    for step in steps:
        began = boottime()
        await outside.do(*step)
        took.append(boottime() - began)
        outside.tell(f"{' '.join(step)}: {took[-1]:.1f} s")
        await scene.load.each_acknowledged(1, _BOUND_S)
    added = await _revision(scene) - before
    return [
        Figure("revisions", "revisions that were added", added, least=1),
        Figure("migrate_s", "migrations before the new engines", took[0], "s"),
        Figure("replace_s", "longest replacement of an engine", max(took[1:-1]), "s"),
        Figure("contract_s", "migrations after the old engines", took[-1], "s"),
    ]


async def _revision(scene: Scene) -> int:
    return int((await _looked(scene, REVISION))[0]["revision"])


async def _looked(scene: Scene, query: LiteralString, params: Params | None = None) -> list[Record]:
    """Look until there is an answer: a connection from before a failover has none."""
    deadline = boottime() + _FATES_S
    while True:
        try:
            return await scene.watch.rows(query, params)
        except DatabaseAway:
            if boottime() > deadline:
                raise
        await asyncio.sleep(_POLL_S)


async def _resumed(scene: Scene, ack: Ack) -> list[Figure]:
    """Measure from the first commit on the new primary until a step of a command is written."""
    deadline = boottime() + _FATES_S
    while boottime() < deadline:
        try:
            at = (await scene.watch.rows(FIRST_WORK, {"started": ack.now}))[0]["at"]
        except EngineError:
            at = None
        if at is not None:
            resumed_s = (at - ack.now).total_seconds()
            return [
                Figure("resume_s", "until work went on after that", resumed_s, "s", most=_RESUMED_S)
            ]
        await asyncio.sleep(_POLL_S)
    raise Unavailable(f"no work went on within {_FATES_S:g} s")


def _fates(held: Held | None) -> list[Figure]:
    if held is None:
        return []
    fates = held.fates
    broken = fates["broken"] + len(held) - fates.total()
    return [
        Figure("grants", "locks held by running commands", len(held), least=1),
        Figure("resumed", "of these held on under the same token", fates["resumed"]),
        Figure("over", "of these over, with their command", fates["over"]),
        Figure("broken", "of these broken", broken, most=0),
    ]


async def main(name: str, seed: int) -> None:
    """Play one scenario, and hand over the verdict."""
    outside = Outside()
    target = composed(libpq_url(load_settings().database_url.get_secret_value()))
    if SCENARIOS[name].fault == "upgrade":
        outside.tell("first back to the version before")
        outside.tell(f"its engines run on revision {await outside.do('previous')}")
    incident = Play(SCENARIOS[name], outside).incident
    report = await play(incident, target, vms=_VMS, seed=seed, tell=outside.tell)
    outside.report(as_json(name, [report]))


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.stdout.write(json.dumps({name: each.about for name, each in SCENARIOS.items()}) + "\n")
    else:
        asyncio.run(main(sys.argv[1], int(sys.argv[2])))
