"""Does to the arena what the schedule says, and writes down when, and when it was over."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any, Literal

import psycopg

from chaos import disks
from chaos.arena import WORKERS_DATABASE, Arena
from chaos.network import BOTH, CONDUCTOR, Harm
from chaos.schedule import Fault
from engine_pg.clock import boottime
from engine_pg.cluster.members import gate_of
from engine_pg.demo.kill_node import Takeover
from engine_pg.demo.process import Process
from engine_pg.demo.watch import Watch
from engine_pg.errors import EngineError

BACKENDS = """
select pid from pg_stat_activity
 where backend_type = 'client backend' and pid <> pg_backend_pid() and application_name like %s
"""
TERMINATE = "select pg_terminate_backend(%s)"
EXHAUST = "select count(pg_advisory_lock((1::bigint << 50) + g)) from generate_series(1, 100000) g"
HELD = "select kind, id, token, member_id from lock_grant where broken_at is null"
FILL = {
    "tables": """
insert into chaos_filler select repeat(md5(g::text), 60) from generate_series(1, 20000) g
""",
    "log": "select pg_logical_emit_message(false, 'chaos', repeat('x', 1000000))",
}
FILLS = 64  # more than a segment of the log, far fewer than the primary keeps for its standby
EMPTY = "truncate chaos_filler"
NOW = "select extract(epoch from clock_timestamp())::float8"
BREAK = "select lock_break(%s, %s, %s, %s, 'chaos', 'on purpose')"
WRITER = "select pg_current_xact_id()"
PATTERNS = {
    "lock session": "engine_pg lock session {}",
    "doorbell": "engine_pg doorbell",
    "pool": "engine_pg {}",
    "worker": "engine_pg worker%",
    "any": "%",
}
FEED: Mapping[str, Sequence[Literal["there", "back"]]] = {  # as the standby sees it
    "both": (),
    "up": ("there",),
    "down": ("back",),
}
OLD_AWAKE_S = 0.3
TAKEOVER_BOUND_S = 6.0

Found = dict[str, Any]


class Nemesis:
    """Performs faults one after the other."""

    def __init__(self, arena: Arena, watch: Watch | None) -> None:
        self._arena = arena
        self._watch = watch
        self._dice = random.Random(f"nemesis/{arena.seed}")
        self._kinds: dict[str, Callable[[Fault], Awaitable[Found | None]]] = {
            "kill": self._kill,
            "freeze": self._freeze,
            "stop": self._stop,
            "cut": self._cut,
            "cut one way": self._cut,
            "isolate": self._isolate,
            "slow": self._cut,
            "lossy": self._cut,
            "twin": self._twin,
            "clock jump": self._clock_jump,
            "terminate": self._terminate,
            "restart": self._restart,
            "crash": self._crash,
            "failover": self._failover,
            "stall": self._stall,
            "standby away": self._standby_away,
            "exhaust": self._exhaust,
            "full disk": self._full_disk,
            "long writer": self._long_writer,
            "break lock": self._break_lock,
            "join": self._join,
        }

    async def perform(self, fault: Fault) -> None:
        """Perform a fault and undo it; returns when it is over."""
        self._arena.tell(str(fault))
        record = fault.record
        self._arena.history.note("fault", fault=record.pop("kind"), **record)
        found: Found = {}
        try:
            found = await self._kinds[fault.kind](fault) or {}
        except (psycopg.Error, EngineError, OSError) as error:
            found = {"trouble": repr(error)}
            self._arena.tell(f"    {fault.kind}: {error!r}")
        self._arena.history.note("healed", number=fault.number, **found)

    async def _kill(self, fault: Fault) -> Found:
        process = self._arena.process(fault.target)
        takeover = await self._takeover(fault.target)
        process.kill()
        killed = boottime()
        if takeover is not None:
            await takeover.follow(TAKEOVER_BOUND_S)
        await asyncio.sleep(max(0.0, killed + fault.length_s - boottime()))
        await self._start_again(process)
        if takeover is None:
            return {}
        return {
            "leaderships": len(takeover.leaderships),
            "leaderships_s": takeover.leaderships_s,
            "commands": len(takeover.commands),
            "commands_s": takeover.commands_s,
        }

    async def _takeover(self, name: str) -> Takeover | None:
        if self._watch is None or name in self._arena.workers:
            return None
        members = {row["node"]: row["member_id"] for row in await self._watch.members()}
        return Takeover(self._watch, members[name]) if name in members else None

    async def _freeze(self, fault: Fault) -> None:
        process = self._arena.process(fault.target)
        process.freeze()
        await asyncio.sleep(fault.length_s)
        process.thaw()

    async def _stop(self, fault: Fault) -> None:
        process = self._arena.process(fault.target)
        await process.stop()
        await asyncio.sleep(fault.length_s)
        await self._start_again(process)

    async def _start_again(self, process: Process) -> None:
        while process.pid is not None:  # noqa: ASYNC110 - its end rings nowhere
            await asyncio.sleep(0.01)
        process.start()

    async def _cut(self, fault: Fault) -> None:
        details = dict(fault.details)
        reset = details.pop("reset", False)
        ways = (details.pop("way"),) if "way" in details else BOTH
        cut = fault.kind.startswith("cut")
        await self._arena.network.hurt(fault.target, Harm(ways=ways, cut=cut, **details))
        await asyncio.sleep(fault.length_s)
        await self._arena.network.heal(fault.target, reset=reset)

    async def _isolate(self, fault: Fault) -> Found | None:
        """Take a process from everybody, hosts and clients included."""
        network = self._arena.network
        if not network.whole_machines:
            return {"skipped": "no machine of its own to isolate"}
        await network.hurt(fault.target, Harm(cut=True, everybody=True))
        await asyncio.sleep(fault.length_s)
        await network.heal(fault.target)
        return None

    async def _twin(self, fault: Fault) -> None:
        """Start a second process with the very configuration of one that runs."""
        arena, original = self._arena, self._arena.process(fault.target)
        twin = await arena.twin(original)
        await asyncio.sleep(fault.length_s)
        twin.kill()

    async def _clock_jump(self, fault: Fault) -> Found | None:
        """Let a process, or the primary, believe in another time of day, and then no more."""
        arena, name = self._arena, fault.target
        if name == "database":
            name = arena.servers.home("primary").name
        if not arena.clocks.knows(name):
            return {"skipped": "its clock cannot be made to jump here"}
        async with await arena.servers.session() as connection:
            before = await _now(connection), boottime()
            arena.clocks.jump(name, fault.details["by_s"])
            seen_s = await _now(connection) - before[0] - (boottime() - before[1])
        if cut := fault.details["cut"] and fault.target in arena.links:
            await arena.network.hurt(name, Harm(cut=True))
        await asyncio.sleep(fault.length_s)
        arena.clocks.jump(name, 0)
        if cut:
            await arena.network.heal(name)
        return {"database_saw_s": round(seen_s)}

    async def _terminate(self, fault: Fault) -> Found:
        role = fault.details["role"]
        pattern = PATTERNS[role].format(fault.target)
        if role == "pool" and fault.target in self._arena.workers:
            pattern = f"chaos {fault.target}"
        pids = await self._backends(pattern)
        victims = self._dice.sample(pids, min(len(pids), self._dice.choice((1, 2))))
        connection = await self._arena.servers.session()
        async with connection:
            for pid in victims:
                await connection.execute(TERMINATE, (pid,))
        return {"victims": len(victims)}

    async def _restart(self, _fault: Fault) -> Found:
        servers = self._arena.servers
        await servers.restart_primary()
        return {"accepting_at": await servers.until_writable()}

    async def _crash(self, _fault: Fault) -> Found:
        pids = await self._backends("%")
        os.kill(self._dice.choice(pids), signal.SIGKILL)
        await asyncio.sleep(0.05)
        return {"accepting_at": await self._arena.servers.until_writable()}

    async def _failover(self, fault: Fault) -> Found:
        arena, old, old_is = self._arena, self._arena.servers.primary, fault.details["old"]
        await self._part(old_is)
        accepting_at = await arena.servers.promote()
        for name in arena.links:
            await arena.route(name)
            if old_is == "cut off" or name == CONDUCTOR:
                await arena.network.heal(name, reset=True)
        await asyncio.sleep(fault.length_s)
        if old_is == "frozen":  # what lay in its sockets is now carried out
            old.thaw()
            await asyncio.sleep(OLD_AWAKE_S)
        await asyncio.to_thread(old.embedded.stop, "immediate")
        await arena.servers.rejoin()
        return {"accepting_at": accepting_at}

    async def _part(self, old_is: str) -> None:
        """Take the primary from its standby, and perhaps from everybody."""
        primary = self._arena.servers.primary
        if old_is == "frozen":
            primary.freeze()
        elif old_is == "dead":
            await self._arena.servers.stop_primary()
        else:
            primary.feed.freeze()
        for name in self._arena.links if old_is == "cut off" else ():
            await self._arena.network.hurt(name, Harm(cut=True))

    async def _stall(self, fault: Fault) -> Found:
        servers = self._arena.servers
        servers.primary.freeze()
        await asyncio.sleep(fault.length_s)
        servers.primary.thaw()
        return {"accepting_at": await servers.until_writable()}

    async def _standby_away(self, fault: Fault) -> Found:
        servers, way = self._arena.servers, fault.details["way"]
        servers.primary.feed.freeze(*FEED[way])
        await asyncio.sleep(fault.length_s)
        servers.primary.feed.heal()
        return {"accepting_at": await servers.until_writable()}

    async def _exhaust(self, fault: Fault) -> Found:
        connection = await self._arena.servers.session(WORKERS_DATABASE)
        async with connection:
            try:
                await connection.execute(EXHAUST)
            except psycopg.errors.OutOfMemory:
                full = True
            else:
                full = False
            await asyncio.sleep(fault.length_s)
        return {"exhausted": full}

    async def _full_disk(self, fault: Fault) -> Found:
        """Let a server's disk be full; a server that gives up is started when there is room."""
        if not self._arena.namespaces:
            return {"skipped": "no disk of its own to fill"}
        servers, server = self._arena.servers, fault.details["of"]
        home, end = servers.home(server), boottime() + fault.length_s
        disks.fill(home, fault.details["room_kb"])
        try:
            said = await self._eat(fault.details["by"], end)
            await asyncio.sleep(max(0.0, end - boottime()))
            died = not servers.runs(server)
        finally:
            disks.empty(home)
        hung = not await servers.recovered()
        accepting_at = await servers.until_writable()
        async with await servers.session(WORKERS_DATABASE) as connection:
            await connection.execute(EMPTY)
        return {"accepting_at": accepting_at, "died": died, "hung": hung, "said": said}

    async def _eat(self, what: str, end: float) -> str:
        """Write until the disk is full or the time over; return what the server said."""
        try:
            async with (
                asyncio.timeout(end - boottime()),
                await self._arena.servers.session(WORKERS_DATABASE) as connection,
            ):
                for _ in range(FILLS):
                    await connection.execute(FILL[what])
        except psycopg.Error as error:
            return str(error).splitlines()[0]
        except TimeoutError:
            pass
        return "nothing"

    async def _long_writer(self, fault: Fault) -> None:
        async with AsyncExitStack() as exits:
            for database in ("engine", WORKERS_DATABASE):
                connection = await exits.enter_async_context(
                    await self._arena.servers.session(database)
                )
                await exits.enter_async_context(connection.transaction())
                await connection.execute(WRITER)
            await asyncio.sleep(fault.length_s)

    async def _break_lock(self, _fault: Fault) -> Found:
        async with await self._arena.servers.session(WORKERS_DATABASE) as connection:
            held = await (await connection.execute(HELD)).fetchall()
            if not held:
                return {"skipped": "nothing was held"}
            kind, id_, token, member = self._dice.choice(sorted(held))
            gate = None if member is None else gate_of(member)
            with suppress(psycopg.errors.LockNotAvailable):  # it has just moved
                await connection.execute(BREAK, (kind, id_, token, gate))
        return {"broken": f"{kind}/{id_} {token}"}

    async def _join(self, fault: Fault) -> None:
        name = f"newcomer-{fault.number}"
        await self._arena.launch_worker(name)
        await asyncio.sleep(fault.length_s)
        await self._arena.workers.pop(name).stop()

    async def _backends(self, pattern: str) -> list[int]:
        async with await self._arena.servers.session() as connection:
            cursor = await connection.execute(BACKENDS, (pattern,))
            return [row[0] for row in await cursor.fetchall()]


async def _now(connection: psycopg.AsyncConnection) -> float:
    """Return the time of day as the database sees it."""
    row = await (await connection.execute(NOW)).fetchone()
    assert row
    return row[0]


async def heal_everything(arena: Arena) -> None:
    """Undo whatever a fault that was interrupted has left behind."""
    for name in arena.links:
        await arena.network.heal(name)
    arena.servers.primary.thaw()
